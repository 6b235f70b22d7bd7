// What is registered for "GPU": the forwarding kernel for every line of the kernel table, a few kernels of their own,
// and, for whatever else in this TensorFlow would touch device memory, one that raises an error (the audit).
// Called once, before TensorFlow makes its first kernel.
#pragma once

#include <string>

namespace waldo::tensorflow_frontend {

// Priority of ours over TensorFlow's own (0 and 1 exist); audit kernels lie between.
inline constexpr int kForwardPriority = 5;
inline constexpr int kAuditPriority = 4;

// Operators that TensorFlow's own kernels run here: they pass tensors on, call functions, or look at shapes alone.
bool runs_here(const std::string& op);

void register_kernels();
void register_own_kernels();  // Const, VarHandleOp, …
void register_functions();    // compiled functions are sent whole

}  // namespace waldo::tensorflow_frontend
