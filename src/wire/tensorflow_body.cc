#include "wire/tensorflow_body.h"

#include "wire/limits.h"

namespace waldo::wire::tf {

namespace {

constexpr uint32_t kInputCountMax = limits::call_slot_count_max;

Status malformed(const char* what, const char* why) {
  return Status(StatusKind::kInvalid, std::string("malformed ") + what + ": " + why);
}

void put_meta(Writer& out, const TensorMeta& meta) {
  out.put(meta.dtype);
  out.put(static_cast<uint32_t>(meta.dims.size()));
  for (const int64_t dim : meta.dims) out.put(dim);
}

TensorMeta get_meta(Reader& in) {
  TensorMeta meta;
  meta.dtype = in.get<uint32_t>("dtype");
  const auto rank = in.get<uint32_t>("rank");
  if (rank > limits::tensor_dim_max) in.fail("rank");
  for (uint32_t i = 0; i < rank && in.ok(); ++i) {
    meta.dims.push_back(in.get<int64_t>("dimension"));
    if (meta.dims.back() < 0) in.fail("dimension");
  }
  return meta;
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
  hash *= 0xff51afd7ed558ccdull;
  return hash ^ (hash >> 33);
}

}  // namespace

Buffer encode(const PlanBody& body) {
  Buffer bytes;
  Writer out(bytes);
  out.put(static_cast<uint8_t>(body.kind));
  out.put_sized(body.name);
  out.put(static_cast<uint32_t>(body.inputs.size()));
  for (const InputKind kind : body.inputs) out.put(static_cast<uint8_t>(kind));
  out.put(body.outputs);
  out.put(static_cast<uint32_t>(body.attributes.size()));
  for (const auto& [name, value] : body.attributes) {
    out.put_sized(name);
    out.put_sized(value);
  }
  return bytes;
}

Result<PlanBody> decode_plan_body(std::span<const std::byte> bytes) {
  Reader in(bytes);
  PlanBody body;
  const auto kind = in.get<uint8_t>("kind");
  if (kind > static_cast<uint8_t>(PlanKind::kAlias)) in.fail("kind");
  body.kind = static_cast<PlanKind>(kind);
  body.name = in.get_text(limits::text_bytes_max, "name");
  const auto inputs = in.get<uint32_t>("inputs");
  if (inputs > kInputCountMax) in.fail("inputs");
  for (uint32_t i = 0; i < inputs && in.ok(); ++i) {
    const auto input = in.get<uint8_t>("input");
    if (input > 1) in.fail("input");
    body.inputs.push_back(static_cast<InputKind>(input));
  }
  body.outputs = in.get<uint16_t>("outputs");
  const auto attributes = in.get<uint32_t>("attributes");
  for (uint32_t i = 0; i < attributes && in.ok(); ++i) {
    auto name = in.get_text(limits::name_bytes_max, "attribute");
    auto value = in.get_text(limits::plan_body_bytes_max, "attribute value");
    body.attributes.emplace_back(std::move(name), std::move(value));
  }
  if (!in.ok()) return malformed("plan body", in.why());
  if (!in.at_end()) return malformed("plan body", "bytes left over");
  return body;
}

uint64_t fingerprint(const TensorMeta& meta) {
  uint64_t hash = mix(0x77616c646f, meta.dtype);
  for (const int64_t dim : meta.dims) hash = mix(hash, static_cast<uint64_t>(dim));
  hash = mix(hash, meta.dims.size());
  return hash == 0 ? 1 : hash;
}

uint64_t fingerprint(std::span<const TensorMeta> outputs) {
  uint64_t hash = mix(1, outputs.size());
  for (const TensorMeta& meta : outputs) hash = mix(hash, fingerprint(meta));
  return hash == 0 ? 1 : hash;
}

void encode(const CallBody& call, Buffer& bytes) {
  Writer out(bytes);
  out.put(call.outputs_expected);
  out.put(static_cast<uint32_t>(call.inputs.size()));
  for (const Input& input : call.inputs) {
    out.put(static_cast<uint32_t>(input.form));
    if (input.form == Input::Form::kWhole) continue;
    put_meta(out, input.meta);
    if (input.form == Input::Form::kView) {
      out.put(input.offset_bytes);
    } else if (input.meta.dtype == kTypeString) {
      out.put(static_cast<uint32_t>(input.texts.size()));
      for (const auto text : input.texts) out.put_sized(text);
    } else {
      out.put_sized(input.content);
    }
  }
  out.pad_to(8);
}

Result<CallBody> decode_call(std::span<const std::byte> bytes) {
  CallBody call;
  if (bytes.empty()) return call;
  Reader in(bytes);
  call.outputs_expected = in.get<uint64_t>("outputs");
  const auto inputs = in.get<uint32_t>("inputs");
  if (inputs > kInputCountMax) in.fail("inputs");
  for (uint32_t i = 0; i < inputs && in.ok(); ++i) {
    Input& input = call.inputs.emplace_back();
    const auto form = in.get<uint32_t>("form");
    if (form > static_cast<uint32_t>(Input::Form::kInline)) in.fail("form");
    input.form = static_cast<Input::Form>(form);
    if (input.form == Input::Form::kWhole) continue;
    input.meta = get_meta(in);
    if (input.form == Input::Form::kView) {
      input.offset_bytes = in.get<int64_t>("offset");
      if (input.offset_bytes < 0) in.fail("offset");
    } else if (input.meta.dtype == kTypeString) {
      const auto count = in.get<uint32_t>("strings");
      for (uint32_t t = 0; t < count && in.ok(); ++t) {
        input.texts.push_back(as_text(in.get_sized(limits::call_scalar_bytes_max, "string")));
      }
    } else {
      input.content = in.get_sized(limits::call_scalar_bytes_max, "content");
    }
  }
  if (!in.ok()) return malformed("call", in.why());
  if (in.left() >= 8) return malformed("call", "bytes left over");
  return call;
}

Buffer encode(const Report& report) {
  Buffer bytes;
  Writer out(bytes);
  out.put(static_cast<uint32_t>(report.outputs.size()));
  for (const TensorMeta& meta : report.outputs) put_meta(out, meta);
  return bytes;
}

Result<Report> decode_report(std::span<const std::byte> bytes) {
  Reader in(bytes);
  Report report;
  const auto count = in.get<uint32_t>("outputs");
  for (uint32_t i = 0; i < count && in.ok(); ++i) report.outputs.push_back(get_meta(in));
  if (!in.ok() || !in.at_end()) return malformed("report", in.why());
  return report;
}

Buffer encode_command(CommandKind kind, std::span<const std::byte> piece) {
  Buffer bytes;
  Writer out(bytes);
  out.put(static_cast<uint8_t>(kind));
  out.put_bytes(piece);
  return bytes;
}

}  // namespace waldo::wire::tf
