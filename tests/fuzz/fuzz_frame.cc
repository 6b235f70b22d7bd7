// Headers and whole frames; what is accepted is encoded again and must be the same bytes.
#include "fuzz/input.h"
#include "wire/dump.h"
#include "wire/frame.h"

using namespace waldo;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Buffer frame = fuzz::input(data, size);
  static_cast<void>(wire::dump_frame(frame));
  if (frame.size() < wire::frame_header_bytes) return 0;
  const auto header_bytes = std::span(frame).first(wire::frame_header_bytes);
  const auto payload = std::span(frame).subspan(wire::frame_header_bytes);
  const auto header = wire::decode_header(header_bytes);
  if (!header.ok()) return 0;
  static_cast<void>(wire::dump(header->kind, header->number, header->lane, payload));
  if (payload.size() > (1u << 20) || !wire::check_payload(header_bytes, payload).ok()) return 0;
  WALDO_CHECK(wire::encode_frame(header->kind, header->lane, header->number, payload) == frame);
  return 0;
}
