// The body of a plan, a call's scalars, a report and a command, as the TensorFlow front end and the TensorFlow backend
// agree on them (plan_body.h is PyTorch's). Bytes only: no TensorFlow header is known here. Types are the numbers of
// tensorflow.DataType and attributes serialised tensorflow.AttrValue messages: both are protobuf, and so stable.
//
// A slot holds one tensor, or one resource handle or variant (a variable, a tensor list), which lives on the worker.
// A call names the slots of the inputs that live there, in order, then one new slot for every output. Its scalars say
// the rest (encode_call); a call whose inputs all are whole values of slots has none.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace waldo::wire::tf {

inline constexpr uint32_t kTypeString = 7;  // DT_STRING: its elements travel one by one

enum class PlanKind : uint8_t {
  kOperator = 0,  // `name` with `attributes`
  kFunction = 1,  // `name`, which a command has defined
  kMake = 2,      // no inputs: the one output is the inline tensor of the call
  kShape = 3,     // one input, no output: the uploaded bytes in that slot are a tensor like the inline one (no content)
  kAlias = 4,     // one input, which may be another queue's: the output is the same value
};

enum class InputKind : uint8_t { kSlot = 0, kInline = 1 };

struct PlanBody {
  PlanKind kind = PlanKind::kOperator;
  std::string name;
  std::vector<InputKind> inputs;
  uint16_t outputs = 0;
  std::vector<std::pair<std::string, std::string>> attributes;  // name, serialised AttrValue
};
Buffer encode(const PlanBody& body);
Result<PlanBody> decode_plan_body(std::span<const std::byte> bytes);

struct TensorMeta {
  uint32_t dtype = 0;
  std::vector<int64_t> dims;
  friend bool operator==(const TensorMeta&, const TensorMeta&) = default;
};
uint64_t fingerprint(const TensorMeta& meta);  // never 0

// What a call says of one input.
struct Input {
  enum class Form : uint32_t { kWhole = 0, kView = 1, kInline = 2 };
  Form form = Form::kWhole;
  TensorMeta meta;                      // kView, kInline
  int64_t offset_bytes = 0;             // kView: where it begins in the slot's value
  std::span<const std::byte> content;   // kInline, but for strings
  std::vector<std::string_view> texts;  // kInline strings
};

struct CallBody {
  uint64_t outputs_expected = 0;  // functions: the fingerprint that outputs_fingerprint() must have; 0: not known
  std::vector<Input> inputs;      // empty: all kWhole
};
void encode(const CallBody& call, Buffer& out);  // a multiple of 8 bytes; appends
Result<CallBody> decode_call(std::span<const std::byte> bytes);

// What the worker says of an asked call's outputs.
struct Report {
  std::vector<TensorMeta> outputs;
};
Buffer encode(const Report& report);
Result<Report> decode_report(std::span<const std::byte> bytes);
uint64_t fingerprint(std::span<const TensorMeta> outputs);

// Commands. A FunctionDef longer than a command comes in pieces; the last one defines it.
enum class CommandKind : uint8_t { kFunctionPiece = 1, kFunctionLast = 2 };
Buffer encode_command(CommandKind kind, std::span<const std::byte> piece);

}  // namespace waldo::wire::tf
