// A channel's receiving side, fed by a peer that gets its checksums right and everything else wrong, over links that
// change at any byte. The input is a list of steps.
#include "channel/core.h"
#include "fuzz/input.h"

using namespace waldo;
using wire::FrameKind;
using wire::Lane;

namespace {

class Sink : public channel::ChannelCore::Events {
 public:
  void on_frame(FrameKind, Lane lane, Buffer payload) override {
    received[static_cast<size_t>(lane)] += payload.size();
    ++frames;
  }
  void on_credit(Lane, uint64_t) override {}
  uint64_t received[2] = {0, 0}, frames = 0;
};

// False when the core has given up on the peer.
bool feed(channel::ChannelCore& core, std::span<const std::byte> bytes) {
  while (!bytes.empty() && !core.peer_goodbye()) {
    const auto spaces = core.to_read();
    size_t size = 0;
    for (const auto& space : spaces) {
      const size_t part = std::min(space.size(), bytes.size() - size);
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(size), part, space.begin());
      size += part;
    }
    WALDO_CHECK(size > 0);
    if (!core.got(size).ok()) return false;
    bytes = bytes.subspan(size);
  }
  return true;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr FrameKind kKinds[] = {FrameKind::kHello,      FrameKind::kAck,  FrameKind::kPing,     FrameKind::kRecords,
                                  FrameKind::kUploadData, FrameKind::kDone, FrameKind::kReadData, FrameKind::kGoodbye};
  const Buffer steps = fuzz::input(data, size);
  Reader reader(steps);
  Sink sink;
  channel::BufferPool pool;
  channel::ChannelCore core(sink, pool, channel::Windows{{4096, 4096}});
  uint64_t consumed[2] = {0, 0}, next_number = 1;
  if (!core.attach(FrameNumber{0}).ok()) return 0;
  while (reader.left() >= 3) {  // a step and its amount
    const auto step = reader.get<uint8_t>("step");
    const auto amount = reader.get<uint16_t>("amount");
    switch (step % 6) {
      case 0:  // bytes as they are
        if (!feed(core, reader.get_bytes(std::min<size_t>(amount, reader.left()), "bytes"))) return 0;
        break;
      case 1:
      case 2: {  // a frame with a right checksum; one in 16 has another number
        const FrameKind kind = kKinds[step / 6 % 8];
        const Lane lane = wire::may_use(kind, Lane::kBulk) ? Lane::kBulk : Lane::kRecords;
        const auto payload = reader.get_bytes(std::min<size_t>(amount % 1024, reader.left()), "payload");
        const FrameNumber number{wire::is_numbered(kind) ? (amount >> 12 == 0 ? amount + 1u : next_number++) : 0u};
        const Buffer frame = wire::encode_frame(kind, lane, number, payload);
        const size_t cut = step % 6 == 2 ? amount % (frame.size() + 1) : frame.size();
        if (!feed(core, std::span(frame).first(cut))) return 0;
        if (cut == frame.size()) break;
        if (!core.attach(FrameNumber{0}).ok()) return 0;  // the link broke in the middle
        next_number = core.received().raw + 1;
        break;
      }
      case 3:
        for (const Lane lane : {Lane::kRecords, Lane::kBulk}) {
          const auto i = static_cast<size_t>(lane);
          const uint64_t bytes = std::min<uint64_t>(amount, sink.received[i] - consumed[i]);
          core.consumed(lane, bytes);
          consumed[i] += bytes;
        }
        if (core.ack_due()) core.acknowledge();
        break;
      case 4:
        core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(8 + amount % 256, std::byte{1}));
        break;
      case 5: {
        size_t left = amount;
        for (auto out = core.to_write(); left > 0 && !out.empty(); out = core.to_write()) {
          const size_t part = std::min(left, out[0].size());
          core.wrote(part);
          left -= part;
        }
        break;
      }
    }
    WALDO_CHECK(sink.received[0] - consumed[0] <= 4096 && sink.received[1] - consumed[1] <= 4096);
    WALDO_CHECK(sink.frames <= core.received().raw);
  }
  return 0;
}
