#include "apps/waldo/farewell.h"

#include "base/os/socket.h"
#include "channel/handshake.h"
#include "wire/frame.h"

namespace waldo::apps {

namespace {

constexpr std::chrono::milliseconds kAnswerMax{1500};
constexpr uint64_t kLastLink = 1ull << 62;  // newer than any of the client's

os::Deadline soon() { return std::chrono::steady_clock::now() + kAnswerMax; }

}  // namespace

void end_session(int link, SessionId session, const wire::Secret& secret) {
  wire::Hello hello;
  hello.session = session;
  hello.secret = secret;
  hello.link_number = kLastLink;
  hello.info_json = "{}";
  const auto say = [&](wire::FrameKind kind, FrameNumber number, const Buffer& payload) {
    return os::write_all(link, wire::encode_frame(kind, wire::Lane::kRecords, number, payload), soon()).ok();
  };
  if (!say(wire::FrameKind::kHello, FrameNumber{}, wire::encode(hello))) return;
  const auto answer = channel::read_frame(link, soon());
  if (!answer.ok()) return;
  const auto bytes = std::span<const std::byte>(*answer);
  if (wire::decode_header(bytes.first(wire::frame_header_bytes))->kind != wire::FrameKind::kWelcome) return;
  const auto welcome = wire::decode_welcome(bytes.subspan(wire::frame_header_bytes));
  if (!welcome.ok()) return;
  wire::Goodbye goodbye;
  goodbye.text = "its client died";
  if (!say(wire::FrameKind::kGoodbye, FrameNumber{welcome->received.raw + 1}, wire::encode(goodbye))) return;
  const auto deadline = soon();
  while (std::chrono::steady_clock::now() < deadline && channel::read_frame(link, soon()).ok())
    continue;  // until it hangs up
}

}  // namespace waldo::apps
