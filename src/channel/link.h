// One connection: bytes in, bytes out, in order, until it breaks. It knows nothing of frames.
//
// Ownership: whoever has the pointer; the channel takes it in attach(). Destroying it closes the connection; no
// callback comes after that.
// Threads: made on any thread, used and destroyed on the loop thread (destroyed anywhere before start()).
// Fork: in a child the descriptors are closed at once, so that a child that lives on does not keep a connection open.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/os/unique_fd.h"
#include "base/status.h"
#include "channel/loop.h"

namespace waldo::channel {

class Link {
 public:
  // How many bytes went through (more than 0), or why there will be no more: kDisconnected.
  using Done = std::function<void(const Status& status, size_t bytes)>;

  virtual ~Link() = default;
  virtual void start(Loop& loop) = 0;  // once, before the first read or write

  // One read and one write may be on their way at a time. Buffers stay the caller's and must stay where they are until
  // `done` was called, which is never from within these functions.
  virtual void async_read(std::span<const std::span<std::byte>> into, Done done) = 0;
  virtual void async_write(std::span<const std::span<const std::byte>> from, Done done) = 0;
  virtual std::string_view name() const = 0;  // "socket", "pipe", "memory"
};

// A connected stream socket: socketpair, unix, tcp.
std::unique_ptr<Link> make_socket_link(os::UniqueFd socket);
// Two descriptors, one per direction: a child's or our own stdin and stdout. They may be the same kind or not, pipes,
// sockets or terminals; they are made non-blocking.
std::unique_ptr<Link> make_pipe_link(os::UniqueFd read_end, os::UniqueFd write_end);

// Two ends inside this process, which may live on different loops. Deterministic when both are on one manual loop.
// `room_bytes`: how much may be under way per direction before a write waits.
std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> make_memory_links(size_t room_bytes = 64 << 10);

// Passes everything on until so many bytes went through in one direction, then breaks, in the middle of a frame or not.
struct CutAfter {
  size_t read_bytes = SIZE_MAX;
  size_t written_bytes = SIZE_MAX;
};
std::unique_ptr<Link> make_cut_link(std::unique_ptr<Link> link, CutAfter cut);

}  // namespace waldo::channel
