// Chunks of content in memory that a client and the worker on its own machine both have mapped. The sender copies into
// a chunk and names it in a message on the bulk lane; the receiver copies out of it and gives it back. Two copies in
// all, both by our processes, side by side; through a socket it is four.
//
// The messages go through the channel, so their order, replay and flow are its own; a chunk belongs to the receiver
// from when it was named until it gives it back, however often links change meanwhile. What lies in a chunk is content
// and nothing else: a liar at the other end can spoil the values it sends or is sent, not more.
//
// Threads: any. Memory: kBytes, of which only the chunks that were ever needed at once are touched.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/os/shared_memory.h"
#include "base/status.h"
#include "wire/limits.h"
#include "wire/messages.h"

namespace waldo::channel {

class SharedChunks {
 public:
  struct Offer {  // what the worker needs to know; travels in HELLO's info
    int pid = 0;
    int fd = -1;
    uint64_t bytes = 0;
  };

  // The client's end. Failures: kUnsupported.
  static Result<std::unique_ptr<SharedChunks>> make();
  Offer offer() const;
  void taken_up() { memory_.close_fd(); }  // the worker has it: nobody else can open it any more

  // The worker's end. Failures: kUnsupported, kInvalid.
  static Result<std::unique_ptr<SharedChunks>> take_up(const Offer& offer);

  // Copies into a free chunk; waits for one, asking `stop` when it begins to wait and every 50 ms from then on. None:
  // `stop` said true. At most chunk_bytes.
  std::optional<wire::SharedPiece> put(std::span<const std::byte> content, const std::function<bool()>& stop);
  void take_back(wire::SharedPiece piece);  // of what was put and then not sent

  // What the other end put, until it is given back. The piece has come through a decoder. kInvalid: it names a chunk
  // that was named before and not given back, so that nobody can make us hold more than all of them.
  Result<std::span<const std::byte>> find(wire::SharedPiece piece);
  void give_back(wire::SharedPiece piece);

  uint64_t bytes_put() const { return bytes_put_.load(std::memory_order_relaxed); }
  uint64_t bytes_got() const { return bytes_got_.load(std::memory_order_relaxed); }  // found

 private:
  enum class End : uint8_t { kClient, kWorker };
  struct Direction;
  struct Layout;

  SharedChunks(os::SharedMemory memory, End end);
  void free(Direction& direction, uint32_t chunk);
  std::optional<uint32_t> try_take();

  os::SharedMemory memory_;
  Layout& layout_;
  Direction& out_;
  Direction& in_;
  std::array<std::atomic<bool>, limits::shared_chunk_count> held_{};  // of the other end's: found, not given back
  std::atomic<uint64_t> bytes_put_{0}, bytes_got_{0};
};

}  // namespace waldo::channel
