#include "channel/channel.h"

#include "channel/channel_impl.h"

namespace waldo::channel {

Channel::Channel(Loop& loop, Handler& handler) : impl_(std::make_shared<Impl>(loop, handler)) {}

Channel::~Channel() {
  if (impl_->in_child()) {
    new std::shared_ptr<Impl>(std::move(impl_));  // its locks and descriptors are the parent's: left alone for ever
    return;
  }
  const auto drop = [this] { impl_->drop(); };
  if (!impl_->loop().run_there(drop)) drop();  // a stopped loop: nobody else is there
}

Status Channel::attach(std::unique_ptr<Link> link, FrameNumber peer_received) {
  Status status(StatusKind::kLost, "the loop has ended");
  impl_->loop().run_there([&] { status = impl_->attach(std::move(link), peer_received); });
  return status;
}

FrameNumber Channel::received() const { return impl_->received(); }

void Channel::watch_peer() {
  if (!impl_->in_child()) {
    impl_->loop().post([impl = impl_] { impl->watch_peer(); });
  }
}

TimePoint Channel::heard_at() const { return impl_->heard_at(); }

Status Channel::send(Lane lane, wire::FrameKind kind, Buffer payload, const std::function<bool()>& interrupted) {
  if (impl_->in_child()) return Status(StatusKind::kLost, "this is a forked child");
  return impl_->send(lane, kind, std::move(payload), interrupted);
}

void Channel::kick(Kick kick) {
  if (!impl_->in_child()) impl_->kick(kick);
}

void Channel::consumed(Lane lane, uint64_t bytes) {
  if (!impl_->in_child()) impl_->consumed(lane, bytes);
}

Buffer Channel::take_buffer(size_t bytes) { return impl_->in_child() ? Buffer(bytes) : impl_->pool().take(bytes); }

void Channel::give_back(Buffer buffer) {
  if (!impl_->in_child()) impl_->pool().give(std::move(buffer));
}

void Channel::close(std::chrono::milliseconds timeout, Status why) {
  if (impl_->in_child()) return;
  impl_->loop().post([impl = impl_, timeout, why = std::move(why)] { impl->close(timeout, why); });
}

void Channel::abort(Status why) {
  WALDO_CHECK(!why.ok());
  if (impl_->in_child()) return;
  impl_->loop().post([impl = impl_, why = std::move(why)] { impl->abort(why); });
}

ChannelCounters Channel::counters() const { return impl_->counters(); }

}  // namespace waldo::channel
