// The payload of every kind of frame but RECORDS. What is accepted is encoded again and must be the same bytes.
#include "fuzz/input.h"
#include "wire/dump.h"
#include "wire/messages.h"

using namespace waldo;

namespace {

template <typename Message>
void try_decode(std::span<const std::byte> payload, Result<Message> (*decode)(std::span<const std::byte>)) {
  const auto message = decode(payload);
  if (!message.ok()) return WALDO_CHECK(!message.status().text().empty());
  const Buffer again = wire::encode(*message);
  WALDO_CHECK(std::equal(again.begin(), again.end(), payload.begin(), payload.end()));
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Buffer payload = fuzz::input(data + 1, size - 1);
  static_cast<void>(wire::dump(static_cast<wire::FrameKind>(data[0]), FrameNumber{1}, wire::Lane::kRecords, payload));
  switch (data[0] % 12) {
    case 0:
      try_decode(payload, wire::decode_hello);
      break;
    case 1:
      try_decode(payload, wire::decode_welcome);
      break;
    case 2:
      try_decode(payload, wire::decode_refuse);
      break;
    case 3:
      try_decode(payload, wire::decode_ack);
      break;
    case 4:
      try_decode(payload, wire::decode_ping);
      break;
    case 5:
      try_decode(payload, wire::decode_goodbye);
      break;
    case 6:
      try_decode(payload, wire::decode_call_report);
      break;
    case 7:
      try_decode(payload, wire::decode_call_failed);
      break;
    case 8:
      try_decode(payload, wire::decode_call_done);
      break;
    case 9:
      try_decode(payload, wire::decode_call_conformed);
      break;
    case 10:
      try_decode(payload, wire::decode_read_data);
      break;
    case 11:
      try_decode(payload, wire::decode_upload_data);
      break;
  }
  return 0;
}
