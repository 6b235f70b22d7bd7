#include "wire/plan_body.h"

#include <fmt/format.h>

#include <algorithm>

namespace waldo::wire {
namespace {

// Every body starts with a byte that names its layout; a new layout is a new number, and both ends may speak several.
constexpr uint8_t kPlanLayout = 1;
constexpr uint8_t kReportLayout = 1;
constexpr uint8_t kCommandLayout = 1;

enum TensorFlags : uint8_t { kConj = 1, kNeg = 2, kWrappedNumber = 4, kDynamicOffset = 8, kTensorFlagsAll = 15 };
enum ArgumentParts : uint8_t {
  kSlots = 1,
  kTensors = 2,
  kScalarTags = 4,
  kInts = 8,
  kFloats = 16,
  kStrings = 32,
  kCount = 64,
  kArgumentPartsAll = 127
};
enum OutputParts : uint8_t { kTensor = 1, kNumber = 2, kInteger = 4, kList = 8, kOutputPartsAll = 15 };

Status malformed_body(const char* what, const Reader& reader) {
  return Status(StatusKind::kInvalid, fmt::format("malformed {}: {}", what, reader.ok() ? "too long" : reader.why()));
}

// --- pieces ----------------------------------------------------------------------------------------------------------

uint32_t get_count(Reader& reader, uint32_t count_max, const char* what) {
  const auto count = reader.get<uint32_t>(what);
  if (count > count_max) reader.fail(what);
  return reader.ok() ? count : 0;
}

template <typename T>
void put_values(Writer& writer, const std::vector<T>& values) {
  writer.put(static_cast<uint32_t>(values.size()));
  writer.put_bytes(std::as_bytes(std::span(values)));
}

template <typename T>
std::vector<T> get_values(Reader& reader, const char* what) {
  const uint32_t count = get_count(reader, limits::plan_list_count_max, what);
  const auto bytes = reader.get_bytes(count * sizeof(T), what);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

void put_tensor(Writer& writer, const TensorMeta& tensor) {
  WALDO_CHECK(tensor.sizes.size() == tensor.strides.size());
  writer.put(static_cast<uint8_t>(tensor.dtype));
  writer.put(static_cast<uint8_t>((tensor.conj ? kConj : 0) | (tensor.neg ? kNeg : 0) |
                                  (tensor.wrapped_number ? kWrappedNumber : 0) |
                                  (tensor.dynamic_offset ? kDynamicOffset : 0)));
  writer.put(static_cast<uint16_t>(tensor.sizes.size()));
  writer.put(tensor.offset);
  for (const int64_t size : tensor.sizes) writer.put(size);
  for (const int64_t stride : tensor.strides) writer.put(stride);
}

std::vector<int64_t> get_extents(Reader& reader, uint16_t dim, const char* what) {
  std::vector<int64_t> values(dim);
  for (int64_t& value : values) {
    value = reader.get<int64_t>(what);
    if (value < 0) reader.fail(what);
  }
  return values;
}

TensorMeta get_tensor(Reader& reader) {
  TensorMeta tensor;
  tensor.dtype = static_cast<DType>(reader.get<uint8_t>("dtype"));
  if (tensor.dtype >= DType::kCount) reader.fail("dtype");
  const auto flags = reader.get<uint8_t>("tensor flags");
  if ((flags & ~kTensorFlagsAll) != 0) reader.fail("tensor flags");
  tensor.conj = (flags & kConj) != 0;
  tensor.neg = (flags & kNeg) != 0;
  tensor.wrapped_number = (flags & kWrappedNumber) != 0;
  tensor.dynamic_offset = (flags & kDynamicOffset) != 0;
  auto dim = reader.get<uint16_t>("dimensions");
  if (dim > limits::tensor_dim_max) reader.fail("dimensions");
  tensor.offset = reader.get<int64_t>("storage offset");
  if (tensor.offset < 0) reader.fail("storage offset");
  if (!reader.ok()) dim = 0;
  tensor.sizes = get_extents(reader, dim, "sizes");
  tensor.strides = get_extents(reader, dim, "strides");
  return tensor;
}

void put_argument(Writer& writer, const Argument& argument) {
  const uint8_t parts =
      static_cast<uint8_t>((argument.slots.empty() ? 0 : kSlots) | (argument.tensors.empty() ? 0 : kTensors) |
                           (argument.scalar_tags.empty() ? 0 : kScalarTags) | (argument.ints.empty() ? 0 : kInts) |
                           (argument.floats.empty() ? 0 : kFloats) | (argument.strings.empty() ? 0 : kStrings) |
                           (argument.count == 0 ? 0 : kCount));
  writer.put(static_cast<uint8_t>(argument.kind));
  writer.put(static_cast<uint8_t>(argument.dynamic ? 1 : 0));
  writer.put(parts);
  writer.put<uint8_t>(0);
  if ((parts & kSlots) != 0) put_values(writer, argument.slots);
  if ((parts & kTensors) != 0) {
    writer.put(static_cast<uint32_t>(argument.tensors.size()));
    for (const auto& tensor : argument.tensors) put_tensor(writer, tensor);
  }
  if ((parts & kScalarTags) != 0) put_values(writer, argument.scalar_tags);
  if ((parts & kInts) != 0) put_values(writer, argument.ints);
  if ((parts & kFloats) != 0) put_values(writer, argument.floats);
  if ((parts & kStrings) != 0) {
    writer.put(static_cast<uint32_t>(argument.strings.size()));
    for (const auto& text : argument.strings) writer.put_sized(text);
  }
  if ((parts & kCount) != 0) writer.put(argument.count);
}

Argument get_argument(Reader& reader) {
  Argument argument;
  argument.kind = static_cast<ArgumentKind>(reader.get<uint8_t>("argument kind"));
  if (argument.kind > ArgumentKind::kCpuTensor) reader.fail("argument kind");
  const auto dynamic = reader.get<uint8_t>("dynamic");
  if (dynamic > 1) reader.fail("dynamic");
  argument.dynamic = dynamic == 1;
  auto parts = reader.get<uint8_t>("argument parts");
  if ((parts & ~kArgumentPartsAll) != 0 || reader.get<uint8_t>("reserved bytes") != 0) reader.fail("argument parts");
  if (!reader.ok()) parts = 0;
  if ((parts & kSlots) != 0) argument.slots = get_values<uint16_t>(reader, "argument slots");
  if ((parts & kTensors) != 0) {
    const uint32_t count = get_count(reader, limits::plan_list_count_max, "tensors");
    for (uint32_t i = 0; i < count && reader.ok(); ++i) argument.tensors.push_back(get_tensor(reader));
  }
  if ((parts & kScalarTags) != 0) {
    argument.scalar_tags = get_values<ScalarTag>(reader, "scalar tags");
    for (const ScalarTag tag : argument.scalar_tags) {
      if (tag > ScalarTag::kComplex) reader.fail("scalar tags");
    }
  }
  if ((parts & kInts) != 0) argument.ints = get_values<int64_t>(reader, "ints");
  if ((parts & kFloats) != 0) argument.floats = get_values<double>(reader, "floats");
  if ((parts & kStrings) != 0) {
    const uint32_t count = get_count(reader, limits::plan_list_count_max, "strings");
    for (uint32_t i = 0; i < count && reader.ok(); ++i) {
      argument.strings.push_back(reader.get_text(limits::text_bytes_max, "string"));
    }
  }
  if ((parts & kCount) != 0) argument.count = get_count(reader, limits::plan_list_count_max, "count");
  return argument;
}

bool has_tensor(OutputKind kind) {
  return kind == OutputKind::kNew || kind == OutputKind::kCpuNew || kind == OutputKind::kViewOf ||
         kind == OutputKind::kArgument;
}

void put_output(Writer& writer, const Output& output, uint32_t depth) {
  WALDO_CHECK(depth <= limits::plan_depth_max);
  const bool number = std::bit_cast<uint64_t>(output.number) != 0;
  const uint8_t parts = static_cast<uint8_t>((has_tensor(output.kind) ? kTensor : 0) | (number ? kNumber : 0) |
                                             (output.integer != 0 ? kInteger : 0) | (output.list.empty() ? 0 : kList));
  writer.put(static_cast<uint8_t>(output.kind));
  writer.put(parts);
  writer.put(output.slot);
  writer.put(output.tensor_index);
  if ((parts & kTensor) != 0) {
    writer.put(output.storage_bytes);
    put_tensor(writer, output.tensor);
  }
  if ((parts & kNumber) != 0) writer.put(output.number);
  if ((parts & kInteger) != 0) writer.put(output.integer);
  if ((parts & kList) != 0) {
    writer.put(static_cast<uint32_t>(output.list.size()));
    for (const auto& item : output.list) put_output(writer, item, depth + 1);
  }
}

Output get_output(Reader& reader, uint32_t depth) {
  Output output;
  if (depth > limits::plan_depth_max) reader.fail("outputs nest too deep");
  output.kind = static_cast<OutputKind>(reader.get<uint8_t>("output kind"));
  if (output.kind > OutputKind::kCpuNew) reader.fail("output kind");
  auto parts = reader.get<uint8_t>("output parts");
  if ((parts & ~kOutputPartsAll) != 0 || ((parts & kTensor) != 0) != has_tensor(output.kind))
    reader.fail("output parts");
  output.slot = reader.get<uint16_t>("output slot");
  output.tensor_index = reader.get<uint16_t>("tensor index");
  if (!reader.ok()) parts = 0;
  if ((parts & kTensor) != 0) {
    output.storage_bytes = reader.get<uint64_t>("storage bytes");
    if (output.storage_bytes > limits::storage_bytes_max) reader.fail("storage bytes");
    output.tensor = get_tensor(reader);
  }
  if ((parts & kNumber) != 0) output.number = reader.get<double>("number");
  if ((parts & kInteger) != 0) output.integer = reader.get<int64_t>("integer");
  if ((parts & kList) != 0) {
    const uint32_t count = get_count(reader, limits::plan_list_count_max, "output list");
    for (uint32_t i = 0; i < count && reader.ok(); ++i) output.list.push_back(get_output(reader, depth + 1));
  }
  return output;
}

void put_outputs(Writer& writer, const std::vector<Output>& outputs) {
  writer.put(static_cast<uint32_t>(outputs.size()));
  for (const auto& output : outputs) put_output(writer, output, 0);
}

std::vector<Output> get_outputs(Reader& reader) {
  std::vector<Output> outputs;
  const uint32_t count = get_count(reader, limits::plan_list_count_max, "outputs");
  for (uint32_t i = 0; i < count && reader.ok(); ++i) outputs.push_back(get_output(reader, 0));
  return outputs;
}

}  // namespace

// --- the three bodies ------------------------------------------------------------------------------------------------

uint32_t element_bytes(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
    case DType::kInt8:
    case DType::kBool:
    case DType::kFloat8E4M3Fn:
    case DType::kFloat8E5M2:
    case DType::kFloat8E4M3Fnuz:
    case DType::kFloat8E5M2Fnuz:
    case DType::kFloat8E8M0Fnu:
      return 1;
    case DType::kInt16:
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBfloat16:
      return 2;
    case DType::kInt32:
    case DType::kUint32:
    case DType::kFloat32:
    case DType::kComplex32:
      return 4;
    case DType::kInt64:
    case DType::kUint64:
    case DType::kFloat64:
    case DType::kComplex64:
      return 8;
    case DType::kComplex128:
      return 16;
    case DType::kCount:
      break;
  }
  WALDO_CHECK(!"a dtype");
}

Buffer encode(const PlanBody& body) {
  Buffer bytes;
  Writer writer(bytes);
  writer.put(kPlanLayout);
  writer.put_sized(std::string_view(body.op).substr(0, limits::name_bytes_max));
  writer.put_sized(std::string_view(body.overload).substr(0, limits::name_bytes_max));
  writer.put(body.schema_hash);
  writer.put(static_cast<uint32_t>(body.arguments.size()));
  for (const auto& argument : body.arguments) put_argument(writer, argument);
  put_outputs(writer, body.outputs);
  return bytes;
}

Result<PlanBody> decode_plan_body(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  PlanBody body;
  if (reader.get<uint8_t>("layout") != kPlanLayout) reader.fail("layout");
  body.op = reader.get_text(limits::name_bytes_max, "op");
  body.overload = reader.get_text(limits::name_bytes_max, "overload");
  body.schema_hash = reader.get<uint64_t>("schema hash");
  const uint32_t count = get_count(reader, limits::plan_argument_count_max, "arguments");
  for (uint32_t i = 0; i < count && reader.ok(); ++i) body.arguments.push_back(get_argument(reader));
  body.outputs = get_outputs(reader);
  if (!reader.ok() || !reader.at_end()) return malformed_body("plan body", reader);
  return body;
}

Buffer encode(const Report& report) {
  Buffer bytes;
  Writer writer(bytes);
  writer.put(kReportLayout);
  put_outputs(writer, report.outputs);
  return bytes;
}

Result<Report> decode_report(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  Report report;
  if (reader.get<uint8_t>("layout") != kReportLayout) reader.fail("layout");
  report.outputs = get_outputs(reader);
  if (!reader.ok() || !reader.at_end()) return malformed_body("report", reader);
  return report;
}

Buffer encode(const Command& command) {
  Buffer bytes;
  Writer writer(bytes);
  writer.put(kCommandLayout);
  writer.put(static_cast<uint8_t>(command.kind));
  writer.put(command.generator);
  writer.put(command.value);
  put_values(writer, command.ints);
  writer.put_sized(std::span<const std::byte>(command.bytes));
  return bytes;
}

Result<Command> decode_command(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  Command command;
  if (reader.get<uint8_t>("layout") != kCommandLayout) reader.fail("layout");
  command.kind = static_cast<CommandKind>(reader.get<uint8_t>("command kind"));
  if (command.kind < CommandKind::kSeed || command.kind > CommandKind::kAbortGroup) reader.fail("command kind");
  command.generator = reader.get<uint32_t>("generator");
  command.value = reader.get<uint64_t>("value");
  command.ints = get_values<int64_t>(reader, "ints");
  const auto content = reader.get_sized(limits::command_bytes_max, "bytes");
  command.bytes.assign(content.begin(), content.end());
  if (!reader.ok() || !reader.at_end()) return malformed_body("command", reader);
  return command;
}

}  // namespace waldo::wire
