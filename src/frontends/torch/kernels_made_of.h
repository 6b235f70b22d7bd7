// Sparse (COO, CSR, CSC, BSR, BSC) and nested tensors on a device of ours. Such a tensor is nothing but plain tensors
// (indices and values; a buffer and sizes), each in a storage of its own on the worker. PyTorch has one function for
// both CPU and CUDA for most of their operators, which calls operators on those: CUDA's key gets that function.
// Others, whose function is CUDA's own, send those tensors to the worker's kernel (kernels_sparse.cc,
// kernels_compressed.cc) or are written here in other operators (kernels_nested.cc).
//
// Threads: registered by one thread before `import torch`.
#pragma once

#include <torch/library.h>

#include <string_view>

namespace waldo::torch_frontend {

// Does the operator ("aten::_to_sparse") make such a tensor from plain ones, so that no worker sees it?
bool is_made_of_plain(std::string_view name);

// What registers kernels of ours for a key; one per key, never freed, as our libraries are never unloaded.
torch::Library& library_of(c10::DispatchKey key);

void register_made_of_kernels();
void register_sparse_kernels();
void register_nested_kernels();

}  // namespace waldo::torch_frontend
