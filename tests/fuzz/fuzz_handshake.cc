// The first frame of a stranger, as the daemon and the worker read it.
#include "channel/handshake.h"
#include "fuzz/input.h"

using namespace waldo;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Buffer frame = fuzz::input(data + 1, size - 1);
  if (data[0] % 2 == 0) {  // else libFuzzer would have to find the checksum
    frame = wire::encode_frame(wire::FrameKind::kHello, wire::Lane::kRecords, FrameNumber{}, frame);
  }
  const auto hello = channel::parse_hello(frame);
  if (hello.ok()) static_cast<void>(channel::check_version(*hello));
  return 0;
}
