// Socket and pipe links: the same code over Asio's two kinds of stream.
#include <array>
#include <asio/buffer.hpp>
#include <asio/generic/stream_protocol.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <optional>
#include <string>

#include <sys/socket.h>

#include "base/os/fork.h"
#include "base/os/socket.h"
#include "channel/link.h"

namespace waldo::channel {
namespace {

// The system's usual 208 KiB is less than a chunk: each chunk would be two writes and two wake-ups on both sides.
constexpr int kSendBufferBytes = 1 << 20;

// Asio takes sequences by value; this one has no heap memory.
template <typename AsioBuffer, typename Bytes>
class BufferList {
 public:
  explicit BufferList(std::span<const std::span<Bytes>> parts) {
    for (const auto& part : parts) {
      if (count_ == buffers_.size()) break;
      if (!part.empty()) buffers_[count_++] = AsioBuffer(part.data(), part.size());
    }
  }
  const AsioBuffer* begin() const { return buffers_.data(); }
  const AsioBuffer* end() const { return buffers_.data() + count_; }

 private:
  std::array<AsioBuffer, 64> buffers_;
  size_t count_ = 0;
};

Status lost(const char* doing, const std::error_code& error) {
  if (error == asio::error::eof) return Status(StatusKind::kDisconnected, "the other side closed the connection");
  return Status(StatusKind::kDisconnected, std::string(doing) + ": " + error.message());
}

// Callbacks of a destroyed link still run inside Asio, as aborted; `alive` keeps them from going further.
class Alive {
 public:
  template <typename Done>
  auto guard(const char* doing, Done done) const {
    return [alive = std::weak_ptr<char>(alive_), doing, done = std::move(done)](const std::error_code& error,
                                                                                size_t bytes) {
      if (alive.expired()) return;
      done(error ? lost(doing, error) : Status(), bytes);
    };
  }

 private:
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

template <typename Stream>
void read_from(Stream& stream, std::span<const std::span<std::byte>> into, auto done) {
  stream.async_read_some(BufferList<asio::mutable_buffer, std::byte>(into), std::move(done));
}

template <typename Stream>
void write_to(Stream& stream, std::span<const std::span<const std::byte>> from, auto done) {
  stream.async_write_some(BufferList<asio::const_buffer, const std::byte>(from), std::move(done));
}

class SocketLink final : public Link {
 public:
  explicit SocketLink(os::UniqueFd socket) : fd_(std::move(socket)), in_child_(fd_.get()) {}

  void start(Loop& loop) override {
    int family = AF_UNIX;
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0) family = address.ss_family;
    stream_.emplace(loop.context());
    std::error_code ignored;  // shows as the first read's error
    stream_->assign(asio::generic::stream_protocol(family, 0), fd_.release(), ignored);
    stream_->native_non_blocking(true, ignored);
    if (family == AF_UNIX) stream_->set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ignored);
  }
  void async_read(std::span<const std::span<std::byte>> into, Done done) override {
    read_from(*stream_, into, alive_.guard("read", std::move(done)));
  }
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    write_to(*stream_, from, alive_.guard("write", std::move(done)));
  }
  std::string_view name() const override { return "socket"; }

 private:
  os::UniqueFd fd_;
  os::CloseInChild in_child_;
  std::optional<asio::generic::stream_protocol::socket> stream_;
  Alive alive_;
};

class PipeLink final : public Link {
 public:
  PipeLink(os::UniqueFd read_end, os::UniqueFd write_end)
      : read_fd_(std::move(read_end)),
        write_fd_(std::move(write_end)),
        read_in_child_(read_fd_.get()),
        write_in_child_(write_fd_.get()) {}

  void start(Loop& loop) override {
    std::error_code ignored;
    input_.emplace(loop.context());
    input_->assign(read_fd_.release(), ignored);
    input_->native_non_blocking(true, ignored);
    output_.emplace(loop.context());
    output_->assign(write_fd_.release(), ignored);
    output_->native_non_blocking(true, ignored);
  }
  void async_read(std::span<const std::span<std::byte>> into, Done done) override {
    read_from(*input_, into, alive_.guard("read", std::move(done)));
  }
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    write_to(*output_, from, alive_.guard("write", std::move(done)));
  }
  std::string_view name() const override { return "pipe"; }

 private:
  os::UniqueFd read_fd_, write_fd_;
  os::CloseInChild read_in_child_, write_in_child_;
  std::optional<asio::posix::stream_descriptor> input_, output_;
  Alive alive_;
};

}  // namespace

std::unique_ptr<Link> make_socket_link(os::UniqueFd socket) { return std::make_unique<SocketLink>(std::move(socket)); }

std::unique_ptr<Link> make_pipe_link(os::UniqueFd read_end, os::UniqueFd write_end) {
  return std::make_unique<PipeLink>(std::move(read_end), std::move(write_end));
}

}  // namespace waldo::channel
