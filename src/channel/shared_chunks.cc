#include "channel/shared_chunks.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <new>
#include <string>

#include "base/check.h"

namespace waldo::channel {

using Word = std::atomic<uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 4);  // the same in every process

// Whoever waits adds itself to `waiters` and looks again before it sleeps; whoever frees looks at `waiters` after it
// freed. All in one order (seq_cst), so one of the two sees the other.
struct SharedChunks::Direction {
  alignas(64) Word freed;  // rises when somebody waits: what they sleep on
  Word waiters;
  alignas(64) std::array<Word, limits::shared_chunk_count> taken;
  alignas(4096) std::array<std::array<std::byte, limits::chunk_bytes>, limits::shared_chunk_count> chunks;
};

struct SharedChunks::Layout {
  Direction up, down;
};

SharedChunks::SharedChunks(os::SharedMemory memory, End end)
    : memory_(std::move(memory)),
      layout_(*reinterpret_cast<Layout*>(memory_.data())),  // all zeros is how it begins
      out_(end == End::kClient ? layout_.up : layout_.down),
      in_(end == End::kClient ? layout_.down : layout_.up) {}

Result<std::unique_ptr<SharedChunks>> SharedChunks::make() {
  auto memory = os::SharedMemory::create(sizeof(Layout));
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<SharedChunks>(new SharedChunks(std::move(*memory), End::kClient));
}

SharedChunks::Offer SharedChunks::offer() const { return {::getpid(), memory_.fd(), sizeof(Layout)}; }

Result<std::unique_ptr<SharedChunks>> SharedChunks::take_up(const Offer& offer) {
  if (offer.bytes != sizeof(Layout)) return Status(StatusKind::kInvalid, "shared memory of another layout");
  auto memory = os::SharedMemory::open(offer.pid, offer.fd, sizeof(Layout));
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<SharedChunks>(new SharedChunks(std::move(*memory), End::kWorker));
}

// The first free one: as long as the receiver keeps up the same few stay in the caches.
std::optional<uint32_t> SharedChunks::try_take() {
  for (uint32_t chunk = 0; chunk < limits::shared_chunk_count; ++chunk) {
    uint32_t no = 0;
    if (out_.taken[chunk].load(std::memory_order_relaxed) == 0 && out_.taken[chunk].compare_exchange_strong(no, 1))
      return chunk;
  }
  return std::nullopt;
}

std::optional<wire::SharedPiece> SharedChunks::put(std::span<const std::byte> content,
                                                   const std::function<bool()>& stop) {
  constexpr std::chrono::milliseconds kAskEvery{50};
  WALDO_CHECK(!content.empty() && content.size() <= limits::chunk_bytes);
  auto chunk = try_take();
  while (!chunk) {
    if (stop()) return std::nullopt;
    const uint32_t freed = out_.freed.load();
    out_.waiters.fetch_add(1);
    chunk = try_take();
    if (!chunk) os::wait_while_equal(out_.freed, freed, kAskEvery);
    out_.waiters.fetch_sub(1);
    if (!chunk) chunk = try_take();
  }
  std::memcpy(out_.chunks[*chunk].data(), content.data(), content.size());
  bytes_put_.fetch_add(content.size(), std::memory_order_relaxed);
  return wire::SharedPiece{*chunk, static_cast<uint32_t>(content.size())};
}

void SharedChunks::take_back(wire::SharedPiece piece) {
  bytes_put_.fetch_sub(piece.bytes, std::memory_order_relaxed);
  free(out_, piece.chunk);
}

Result<std::span<const std::byte>> SharedChunks::find(wire::SharedPiece piece) {
  if (held_[piece.chunk].exchange(true)) {
    return Status(StatusKind::kInvalid,
                  "shared chunk " + std::to_string(piece.chunk) + " named before it was given back");
  }
  bytes_got_.fetch_add(piece.bytes, std::memory_order_relaxed);
  return std::span<const std::byte>(in_.chunks[piece.chunk]).first(piece.bytes);
}

void SharedChunks::give_back(wire::SharedPiece piece) {
  held_[piece.chunk].store(false);
  free(in_, piece.chunk);
}

void SharedChunks::free(Direction& direction, uint32_t chunk) {
  direction.taken[chunk].store(0);
  if (direction.waiters.load() == 0) return;
  direction.freed.fetch_add(1);
  os::wake_all(direction.freed);
}

}  // namespace waldo::channel
