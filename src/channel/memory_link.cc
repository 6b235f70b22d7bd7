// Links without a system beneath them: a pair in memory, and one that breaks where it is told to.
#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "channel/link.h"

namespace waldo::channel {
namespace {

// One direction. The writer's bytes wait here until the reader takes them.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  explicit Stream(size_t room_bytes) : room_bytes_(room_bytes) {}

  // Either end is served when both what it wants and what it offers are there.
  struct Reading {
    Loop* loop = nullptr;
    std::vector<std::span<std::byte>> into;
    Link::Done done;
  };
  struct Writing {
    Loop* loop = nullptr;
    std::vector<std::span<const std::byte>> from;
    Link::Done done;
  };
  void read(Reading reading) {
    const std::lock_guard lock(mutex_);
    reading_ = std::move(reading);
    match();
  }
  void write(Writing writing) {
    const std::lock_guard lock(mutex_);
    writing_ = std::move(writing);
    match();
  }
  void close_reader() {
    const std::lock_guard lock(mutex_);
    reading_ = Reading();
    reader_gone_ = true;
    match();
  }
  void close_writer() {
    const std::lock_guard lock(mutex_);
    writing_ = Writing();
    writer_gone_ = true;
    match();
  }

 private:
  void match() {
    if (writing_.done && (reader_gone_ || waiting_.size() < room_bytes_)) {
      const auto bytes = reader_gone_ ? 0 : put();
      Writing written = std::exchange(writing_, Writing());
      answer(*written.loop, std::move(written.done), bytes);
    }
    if (reading_.done && (writer_gone_ || !waiting_.empty())) {
      const auto bytes = take();
      Reading read = std::exchange(reading_, Reading());
      answer(*read.loop, std::move(read.done), bytes);
      if (bytes > 0 && writing_.done) match();  // room again
    }
  }
  size_t put() {
    const size_t before = waiting_.size();
    for (const auto& part : writing_.from) {
      const auto fits = part.first(std::min(part.size(), room_bytes_ - waiting_.size()));
      waiting_.insert(waiting_.end(), fits.begin(), fits.end());
    }
    return waiting_.size() - before;
  }
  size_t take() {
    size_t total = 0;
    for (const auto& part : reading_.into) {
      const size_t size = std::min(part.size(), waiting_.size());
      std::copy_n(waiting_.begin(), size, part.begin());
      waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(size));
      total += size;
    }
    return total;
  }
  static void answer(Loop& loop, Link::Done done, size_t bytes) {
    loop.post([done = std::move(done), bytes] {
      done(bytes > 0 ? Status() : Status(StatusKind::kDisconnected, "the other side closed the connection"), bytes);
    });
  }

  const size_t room_bytes_;
  std::mutex mutex_;
  std::deque<std::byte> waiting_;
  Reading reading_;
  Writing writing_;
  bool reader_gone_ = false, writer_gone_ = false;
};

class MemoryLink final : public Link {
 public:
  MemoryLink(std::shared_ptr<Stream> in, std::shared_ptr<Stream> out) : in_(std::move(in)), out_(std::move(out)) {}
  ~MemoryLink() override {
    in_->close_reader();
    out_->close_writer();
  }
  void start(Loop& loop) override { loop_ = &loop; }
  void async_read(std::span<const std::span<std::byte>> into, Done done) override {
    in_->read({loop_, {into.begin(), into.end()}, guard(std::move(done))});
  }
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    out_->write({loop_, {from.begin(), from.end()}, guard(std::move(done))});
  }
  std::string_view name() const override { return "memory"; }

 private:
  Done guard(Done done) const {
    return [alive = std::weak_ptr<char>(alive_), done = std::move(done)](const Status& status, size_t bytes) {
      if (!alive.expired()) done(status, bytes);
    };
  }

  std::shared_ptr<Stream> in_, out_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  Loop* loop_ = nullptr;
};

class CutLink final : public Link {
 public:
  CutLink(std::unique_ptr<Link> link, CutAfter left) : link_(std::move(link)), left_(left) {}

  void start(Loop& loop) override {
    loop_ = &loop;
    link_->start(loop);
  }
  void async_read(std::span<const std::span<std::byte>> into, Done done) override {
    if (left_.read_bytes == 0) return cut(std::move(done));
    link_->async_read(shortened(into, left_.read_bytes), counting(left_.read_bytes, std::move(done)));
  }
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    if (left_.written_bytes == 0) return cut(std::move(done));
    link_->async_write(shortened(from, left_.written_bytes), counting(left_.written_bytes, std::move(done)));
  }
  std::string_view name() const override { return link_->name(); }

 private:
  template <typename Bytes>
  static std::vector<std::span<Bytes>> shortened(std::span<const std::span<Bytes>> parts, size_t bytes) {
    std::vector<std::span<Bytes>> result;
    for (const auto& part : parts) {
      result.push_back(part.first(std::min(part.size(), bytes)));
      bytes -= result.back().size();
    }
    return result;
  }
  static Done counting(size_t& left, Done done) {
    return [&left, done = std::move(done)](const Status& status, size_t bytes) {
      left -= bytes;
      done(status, bytes);
    };
  }
  void cut(Done done) const {
    loop_->post([alive = std::weak_ptr<char>(alive_), done = std::move(done)] {
      if (!alive.expired()) done(Status(StatusKind::kDisconnected, "cut here by the test"), 0);
    });
  }

  std::unique_ptr<Link> link_;
  CutAfter left_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  Loop* loop_ = nullptr;
};

}  // namespace

std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> make_memory_links(size_t room_bytes) {
  auto up = std::make_shared<Stream>(room_bytes), down = std::make_shared<Stream>(room_bytes);
  return {std::make_unique<MemoryLink>(up, down), std::make_unique<MemoryLink>(down, up)};
}

std::unique_ptr<Link> make_cut_link(std::unique_ptr<Link> link, CutAfter cut) {
  return std::make_unique<CutLink>(std::move(link), cut);
}

}  // namespace waldo::channel
