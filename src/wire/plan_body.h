// The body of a plan, a report and a command, as the torch front end and the torch backend agree on them. Torch-free
// bytes; wire's other files, client and server never look inside. Our own numbers for dtypes, layouts and memory
// formats: no c10 enum value travels.
//
// A call's `scalars` carry, in argument order and 8-byte aligned little-endian values, whatever the plan marks dynamic:
//   tensor with `dynamic_offset`      i64  storage offset, in elements
//   kScalar (int, bool)               i64;  (float) f64;  (complex) f64 f64
//   kFloat dynamic                    f64;  kFloatList: f64 each; kScalarList: each as kScalar by its own tag
//   kIntList dynamic                  i64 each (count is in the plan)
//   kInt dynamic                      i64
//   kCpuScalar (0-dim CPU tensor)     its element, zero-padded to 16 bytes
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "wire/limits.h"

namespace waldo::wire {

enum class DType : uint8_t {
  kUint8 = 0,
  kInt8 = 1,
  kInt16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kFloat16 = 5,
  kFloat32 = 6,
  kFloat64 = 7,
  kComplex32 = 8,
  kComplex64 = 9,
  kComplex128 = 10,
  kBool = 11,
  kBfloat16 = 12,
  kUint16 = 13,
  kUint32 = 14,
  kUint64 = 15,
  kFloat8E4M3Fn = 16,
  kFloat8E5M2 = 17,
  kFloat8E4M3Fnuz = 18,
  kFloat8E5M2Fnuz = 19,
  kFloat8E8M0Fnu = 20,
  kCount
};
uint32_t element_bytes(DType dtype);

struct TensorMeta {
  DType dtype = DType::kFloat32;
  bool conj = false, neg = false;
  bool wrapped_number = false;
  bool dynamic_offset = false;  // else `offset` is constant
  int64_t offset = 0;           // elements
  std::vector<int64_t> sizes, strides;
};

enum class ArgumentKind : uint8_t {
  kNone = 0,
  kTensor = 1,      // `tensors[0]`, in slot `slots[0]`
  kTensorList = 2,  // `tensors`; an entry with slot index kNoSlot is None (optional tensors)
  kCpuScalar = 3,   // a 0-dim CPU tensor by value; `tensors[0]` gives dtype and wrapped_number
  kScalar = 4,      // at::Scalar by value; `scalar_tags[0]`
  kInt = 5,
  kFloat = 6,
  kBool = 7,
  kString = 8,
  kIntList = 9,
  kFloatList = 10,
  kBoolList = 11,
  kScalarList = 12,
  kDType = 13,
  kLayout = 14,
  kMemoryFormat = 15,
  kDevice = 16,     // `ints[0]`: -1 the CPU, else a queue number of this session
  kGenerator = 17,  // `ints[0]`: generator number, 0 the device's default one
  kStringList = 18,
  kCpuTensor = 19,  // a small CPU tensor with dim > 0 uploaded into slot `slots[0]`, to be passed as a CPU tensor
};
enum class ScalarTag : uint8_t { kInt = 0, kFloat = 1, kBool = 2, kComplex = 3 };
inline constexpr uint16_t kNoSlot = 0xffff;

struct Argument {
  ArgumentKind kind = ArgumentKind::kNone;
  bool dynamic = false;         // values travel in `scalars`; counts are below
  std::vector<uint16_t> slots;  // index into the call's slots, per tensor
  std::vector<TensorMeta> tensors;
  std::vector<ScalarTag> scalar_tags;
  std::vector<int64_t> ints;   // kInt, kBool (0/1), kIntList, kBoolList, kDType, kLayout, kMemoryFormat, kDevice,
                               // kGenerator; for a dynamic list its size is `count`
  std::vector<double> floats;  // kFloat, kFloatList; constant kScalar float/complex (re, im)
  std::vector<std::string> strings;
  uint32_t count = 0;  // of a dynamic list
};

enum class OutputKind : uint8_t {
  kNone = 0,
  kNew = 1,       // a new storage in slot `slot`; `tensor` predicted
  kArgument = 2,  // is the `tensor_index`-th tensor of the flattened arguments, itself
  kViewOf = 3,    // another tensor over the storage in slot `slot` (a read slot)
  kInt = 4,
  kFloat = 5,
  kBool = 6,    // constants: `number`
  kList = 7,    // `list`
  kCpuNew = 8,  // a CPU tensor made by the call, kept on the worker; as kNew
};
struct Output {
  OutputKind kind = OutputKind::kNone;
  uint16_t slot = kNoSlot;
  uint16_t tensor_index = 0;
  uint64_t storage_bytes = 0;  // kNew
  TensorMeta tensor;
  double number = 0;
  int64_t integer = 0;
  std::vector<Output> list;
};

struct PlanBody {
  std::string op;            // "aten::add"
  std::string overload;      // "Tensor", or ""
  uint64_t schema_hash = 0;  // XXH3-64 of the schema's text; 0: not checked
  std::vector<Argument> arguments;
  std::vector<Output> outputs;  // empty for asks
};
Buffer encode(const PlanBody& body);
Result<PlanBody> decode_plan_body(std::span<const std::byte> bytes);

// What the worker says of an asked call: the outputs as they are. kNew outputs took the created slots in order.
struct Report {
  std::vector<Output> outputs;
};
Buffer encode(const Report& report);
Result<Report> decode_report(std::span<const std::byte> bytes);

// Commands to the backend, outside operators.
enum class CommandKind : uint8_t {
  kSeed = 1,               // generator `generator` gets `value` as seed
  kGetGeneratorState = 2,  // report: `bytes`
  kSetGeneratorState = 3,  // `bytes`
  kNewGenerator = 4,       // number `generator`, seeded with `value`
  kFreeGenerator = 5,
  kMemoryInfo = 6,  // report: ints {free, total, allocated, reserved, …}
  kEmptyCache = 7,
  kSetFlags = 8,       // at::globalContext() flags as bits in `value` (see ContextFlag), above them the threads
  kCopyGenerator = 9,  // `generator` becomes a copy of generator number `value` (graphsafe state, clone)
  // Groups of ranks (wire/collectives.h); `generator` is the client's number for the group.
  kOpenGroup = 10,   // ints {rank, size, timeout in ms}; report: `bytes`, where each other rank finds this worker
  kJoinGroup = 11,   // `bytes`: of each rank, where this one finds its worker; connects, without a wait
  kLeaveGroup = 12,  // after what was recorded has ended, at most `value` ms; report
  kAbortGroup = 13,  // at once: collectives that wait fail
};
enum class ContextFlag : uint64_t {
  kDeterministic = 1 << 0,
  kDeterministicWarnOnly = 1 << 1,
  kAllowTf32Cublas = 1 << 2,
  kAllowTf32Cudnn = 1 << 3,
  kBenchmarkCudnn = 1 << 4,
  kDeterministicCudnn = 1 << 5,
  kCudnnEnabled = 1 << 6,
  kFillUninitialized = 1 << 7,
  kAllowFp16Reduction = 1 << 8,
  kAllowBf16Reduction = 1 << 9,
  kFlushDenormal = 1 << 10,
};
// The upper half of kSetFlags' `value`: how many threads an operator may take on a CPU; 0: the worker's own number.
inline constexpr int context_threads_shift = 32;
inline constexpr uint64_t context_threads_max = 4096;
struct Command {
  CommandKind kind = CommandKind::kSeed;
  uint32_t generator = 0;
  uint64_t value = 0;
  std::vector<int64_t> ints;
  std::vector<std::byte> bytes;
};
Buffer encode(const Command& command);
Result<Command> decode_command(std::span<const std::byte> bytes);

// StatusDetail::error_class between the two: which exception a local GPU would have raised.
enum class ErrorClass : uint16_t {
  kRuntime = 0,
  kOutOfMemory = 1,
  kIndex = 2,
  kValue = 3,
  kType = 4,
  kNotImplemented = 5,
  kLinAlg = 6,
  kAccelerator = 7,
  kDistBackend = 8,  // a collective: torch.distributed.DistBackendError
};

}  // namespace waldo::wire
