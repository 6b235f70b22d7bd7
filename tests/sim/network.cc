#include "sim/network.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <vector>

#include "base/bytes.h"

namespace waldo::sim {
namespace {

using channel::Link;

// One direction. Bytes are in `flying` until they arrive, then in `arrived` until they are read; both take room.
class Wire : public std::enable_shared_from_this<Wire> {
 public:
  Wire(Stage& stage, const Fate& fate) : stage_(stage), fate_(fate) {}

  struct Reading {
    channel::Loop* loop = nullptr;
    std::vector<std::span<std::byte>> into;
    Link::Done done;
  };
  struct Writing {
    channel::Loop* loop = nullptr;
    std::vector<std::span<const std::byte>> from;
    Link::Done done;
  };
  void read(Reading reading) {
    reading_ = std::move(reading);
    serve();
  }
  void write(Writing writing) {
    writing_ = std::move(writing);
    serve();
  }
  // An end was destroyed. The other one hears it after what is under way, if it hears anything.
  void close_writer() {
    writing_ = Writing();
    const auto end = [self = shared_from_this()] {
      self->ended_ = self->fate_.reader_hears || !self->cut();
      self->serve();
    };
    stage_.at(arrival(), end);
  }
  void close_reader() {
    reading_ = Reading();
    const auto end = [self = shared_from_this()] {
      self->reader_gone_ = self->fate_.writer_hears || !self->cut();
      self->serve();
    };
    stage_.at(stage_.now() + fate_.delay, end);
  }

 private:
  bool cut() const { return passed_ >= fate_.cut_after_bytes; }

  // Bytes do not overtake each other.
  TimePoint arrival() {
    Duration delay = fate_.delay;
    if (fate_.delay_extra.count() > 0) {
      delay +=
          Duration(static_cast<Duration::rep>(stage_.prng().below(static_cast<uint64_t>(fate_.delay_extra.count()))));
    }
    last_arrival_ = std::max(last_arrival_, stage_.now() + delay);
    return last_arrival_;
  }

  size_t piece(size_t bytes) {
    if (!fate_.small_pieces || bytes <= 1) return bytes;
    return std::min<size_t>(bytes, stage_.prng().between(1, 4096));
  }

  void serve() {
    if (writing_.done) {
      if (reader_gone_ || (cut() && fate_.writer_hears)) {
        fail(std::exchange(writing_, Writing()));
      } else if (flying_bytes_ + arrived_.size() < fate_.room_bytes) {
        take_from_writer();
      }
    }
    if (reading_.done) {
      if (!arrived_.empty()) {
        give_to_reader();
      } else if (ended_) {
        fail(std::exchange(reading_, Reading()));
      }
    }
  }

  void take_from_writer() {
    Buffer bytes;
    size_t left = 0;
    for (const auto& part : writing_.from) left += part.size();
    left = piece(std::min(left, fate_.room_bytes - flying_bytes_ - arrived_.size()));
    const size_t taken = left;
    for (const auto& part : writing_.from) {
      const auto some = part.first(std::min(left, part.size()));
      bytes.resize(bytes.size() + some.size());
      std::ranges::copy(some, bytes.end() - static_cast<ptrdiff_t>(some.size()));
      left -= some.size();
    }
    const size_t through = std::min(taken, fate_.cut_after_bytes - passed_);
    passed_ += through;
    flying_bytes_ += taken;
    bytes.resize(through);  // the rest goes nowhere, and takes its room for ever
    const bool last = cut();
    stage_.at(arrival(), [self = shared_from_this(), bytes = std::move(bytes), last] {
      self->flying_bytes_ -= bytes.size();
      self->arrived_.insert(self->arrived_.end(), bytes.begin(), bytes.end());
      if (last && self->fate_.reader_hears) self->ended_ = true;
      self->serve();
    });
    Writing written = std::exchange(writing_, Writing());
    written.loop->post([done = std::move(written.done), taken] { done(Status(), taken); });
  }

  void give_to_reader() {
    size_t total = 0;
    const size_t most = piece(arrived_.size());
    for (const auto& part : reading_.into) {
      const size_t size = std::min(part.size(), most - total);
      std::copy_n(arrived_.begin(), size, part.begin());
      arrived_.erase(arrived_.begin(), arrived_.begin() + static_cast<ptrdiff_t>(size));
      total += size;
    }
    Reading read = std::exchange(reading_, Reading());
    read.loop->post([done = std::move(read.done), total] { done(Status(), total); });
    if (writing_.done) serve();  // room again
  }

  template <typename Half>
  static void fail(Half half) {
    half.loop->post([done = std::move(half.done)] { done(Status(StatusKind::kDisconnected, "connection reset"), 0); });
  }

  Stage& stage_;
  const Fate fate_;
  size_t passed_ = 0, flying_bytes_ = 0;
  std::deque<std::byte> arrived_;
  TimePoint last_arrival_;
  Reading reading_;
  Writing writing_;
  bool ended_ = false, reader_gone_ = false;
};

class SimLink final : public Link {
 public:
  SimLink(std::shared_ptr<Wire> in, std::shared_ptr<Wire> out) : in_(std::move(in)), out_(std::move(out)) {}
  ~SimLink() override {
    in_->close_reader();
    out_->close_writer();
  }
  void start(channel::Loop& loop) override { loop_ = &loop; }
  void async_read(std::span<const std::span<std::byte>> into, Done done) override {
    in_->read({loop_, {into.begin(), into.end()}, guard(std::move(done))});
  }
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    out_->write({loop_, {from.begin(), from.end()}, guard(std::move(done))});
  }
  std::string_view name() const override { return "simulated"; }

 private:
  Done guard(Done done) const {
    return [alive = std::weak_ptr<char>(alive_), done = std::move(done)](const Status& status, size_t bytes) {
      if (!alive.expired()) done(status, bytes);
    };
  }

  std::shared_ptr<Wire> in_, out_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  channel::Loop* loop_ = nullptr;
};

}  // namespace

Links make_links(Stage& stage, const Fate& up, const Fate& down) {
  auto up_wire = std::make_shared<Wire>(stage, up), down_wire = std::make_shared<Wire>(stage, down);
  return {std::make_unique<SimLink>(down_wire, up_wire), std::make_unique<SimLink>(up_wire, down_wire)};
}

}  // namespace waldo::sim
