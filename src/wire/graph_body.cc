#include "wire/graph_body.h"

#include <fmt/format.h>

#include <cstring>

#include "wire/limits.h"

namespace waldo::wire {
namespace {

// The byte that names a plan body's layout (plan_body.cc has 1).
constexpr uint8_t kGraphLayout = 2;

GraphStep get_step(Reader& reader, uint32_t value_count) {
  GraphStep step;
  step.kind = static_cast<GraphStep::Kind>(reader.get<uint8_t>("step kind"));
  if (step.kind > GraphStep::Kind::kResize) reader.fail("step kind");
  if (step.kind != GraphStep::Kind::kCall) {
    step.bytes = reader.get<uint64_t>("storage bytes");
    if (step.bytes > limits::storage_bytes_max) reader.fail("storage bytes");
  } else {
    step.plan.raw = reader.get<uint32_t>("plan");
    const auto scalars = reader.get_sized(limits::call_scalar_bytes_max, "scalars");
    step.scalars.assign(scalars.begin(), scalars.end());
  }
  const auto count = reader.get<uint32_t>("values");
  if (count > limits::call_slot_count_max) reader.fail("values");
  if (step.kind != GraphStep::Kind::kCall && count != 1) reader.fail("values");
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    step.values.push_back(reader.get<uint32_t>("value"));
    if (step.values.back() >= value_count) reader.fail("value");
  }
  return step;
}

}  // namespace

bool is_graph_body(std::span<const std::byte> bytes) { return !bytes.empty() && bytes[0] == std::byte{kGraphLayout}; }

Buffer encode(const GraphBody& body) {
  Buffer bytes;
  Writer writer(bytes);
  writer.put(kGraphLayout);
  writer.put(body.value_count);
  writer.put(static_cast<uint32_t>(body.steps.size()));
  for (const GraphStep& step : body.steps) {
    writer.put(static_cast<uint8_t>(step.kind));
    if (step.kind != GraphStep::Kind::kCall) {
      writer.put(step.bytes);
    } else {
      writer.put(step.plan.raw);
      writer.put_sized(std::span<const std::byte>(step.scalars));
    }
    writer.put(static_cast<uint32_t>(step.values.size()));
    for (const uint32_t value : step.values) writer.put(value);
  }
  return bytes;
}

Result<GraphBody> decode_graph_body(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  GraphBody body;
  if (reader.get<uint8_t>("layout") != kGraphLayout) reader.fail("layout");
  body.value_count = reader.get<uint32_t>("value count");
  if (body.value_count > limits::graph_value_count_max) reader.fail("value count");
  const auto count = reader.get<uint32_t>("steps");
  for (uint32_t i = 0; i < count && reader.ok(); ++i) body.steps.push_back(get_step(reader, body.value_count));
  if (!reader.ok() || !reader.at_end()) {
    return Status(StatusKind::kInvalid,
                  fmt::format("malformed graph body: {}", reader.ok() ? "too long" : reader.why()));
  }
  return body;
}

}  // namespace waldo::wire
