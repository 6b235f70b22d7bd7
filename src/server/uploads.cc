#include "server/uploads.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/blocking.h"
#include "base/os/memory.h"
#include "wire/plan_body.h"

namespace waldo::server {

namespace {

constexpr size_t kAlignment = 64;

// Empty when the system has no memory for it. First touch is most of an upload's cost on the embedded worker.
UploadedBytes allocate(uint64_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, kAlignment, size) != 0) return {};
  os::want_huge_pages(memory, size);
  UploadedBytes bytes;
  bytes.data = {static_cast<std::byte*>(memory), [](std::byte* data) { std::free(data); }};
  bytes.size = size;
  return bytes;
}

Status no_memory(uint64_t size) {
  StatusDetail detail;
  detail.error_class = static_cast<uint16_t>(wire::ErrorClass::kOutOfMemory);
  return Status(StatusKind::kDevice,
                "the worker's host has no memory for an upload of " + std::to_string(size) + " bytes", detail);
}

Status broken(UploadId id, const char* rule) {
  return Status(StatusKind::kInvalid, "upload " + std::to_string(id.raw) + ": " + rule);
}

}  // namespace

void Credit::add(const Credit& more) {
  window_bytes += more.window_bytes;
  shared.insert(shared.end(), more.shared.begin(), more.shared.end());
}

Uploads::Uploads(Grant grant, uint64_t staging_bytes_max)
    : grant_(std::move(grant)), staging_bytes_max_(staging_bytes_max) {}

Status Uploads::add(UploadId id, uint64_t total, uint64_t offset, std::span<const std::byte> bytes,
                    const Credit& cost) {
  Credit credit;
  {
    std::lock_guard lock(mutex_);
    WALDO_TRY(add_locked(id, total, offset, bytes));
    held_credit_.add(cost);
    credit = take_credit_locked();
  }
  if (!credit.empty()) grant_(credit);
  return {};
}

Status Uploads::add_locked(UploadId id, uint64_t total, uint64_t offset, std::span<const std::byte> bytes) {
  if (total == 0 || total > limits::storage_bytes_max) return broken(id, "a size of zero or past storage_bytes_max");
  auto [found, is_new] = entries_.try_emplace(id);
  Entry& entry = found->second;
  if (is_new && entries_.size() > kEntryCountMax) return broken(id, "too many uploads at once");
  if (entry.total == 0) {
    entry.total = total;
    if (!entry.skipped) {
      entry.data = allocate(total);
      entry.refused = entry.data.data == nullptr;
      staged_bytes_ += kEntryCost;
    }
  }
  if (total != entry.total) return broken(id, "its size changed");
  if (offset != entry.received) return broken(id, "a chunk out of order");
  if (bytes.size() > total - offset) return broken(id, "more bytes than it has");
  if (bytes.empty()) {  // the client gave up; no more will come
    if (offset == total || entry.given_up) return broken(id, "an empty chunk");
    entry.given_up = true;
    if (entry.skipped) entries_.erase(found);
    changed_.notify_all();
    return {};
  }
  if (entry.given_up) return broken(id, "a chunk after its last");

  entry.received += bytes.size();
  if (entry.skipped) {
    if (entry.received == entry.total) entries_.erase(found);
    return {};
  }
  if (!entry.refused) {
    std::memcpy(entry.data.data.get() + offset, bytes.data(), bytes.size());
    staged_bytes_ += bytes.size();
  }
  if (entry.received == entry.total) changed_.notify_all();
  return {};
}

Result<UploadedBytes> Uploads::take(UploadId id, uint64_t bytes) {
  if (bytes == 0) return UploadedBytes{};
  std::unique_lock lock(mutex_);
  auto complete = [&] {
    const auto found = entries_.find(id);
    return found != entries_.end() && found->second.ended();
  };
  if (!complete() && !stopped_) {
    ++blocked_;
    const Credit credit = take_credit_locked();
    lock.unlock();
    if (!credit.empty()) grant_(credit);
    lock.lock();
    block(lock, changed_, [&] { return complete() || stopped_; });
    --blocked_;
  }
  if (stopped_) return Status(StatusKind::kCancelled, "the session ends");

  const auto found = entries_.find(id);
  Entry entry = std::move(found->second);
  entries_.erase(found);
  drop_staged_locked(entry);
  const Credit credit = take_credit_locked();
  lock.unlock();
  if (!credit.empty()) grant_(credit);

  if (entry.total != bytes) return broken(id, "another size than its record says");
  if (entry.given_up) return Status(StatusKind::kCancelled, "the upload was interrupted");
  if (entry.refused) return no_memory(entry.total);
  return std::move(entry.data);
}

Status Uploads::skip(UploadId id, uint64_t bytes) {
  if (bytes == 0) return {};
  Credit credit;
  Entry dropped;  // freed outside the lock
  {
    std::lock_guard lock(mutex_);
    auto [found, is_new] = entries_.try_emplace(id);
    Entry& entry = found->second;
    if (is_new && entries_.size() > kEntryCountMax) return broken(id, "too many uploads at once");
    if (!is_new && entry.total != bytes) return broken(id, "another size than its record says");
    if (entry.skipped) return broken(id, "used twice");
    if (!is_new) drop_staged_locked(entry);
    if (entry.ended()) {
      dropped = std::move(entry);
      entries_.erase(found);
    } else {
      dropped.data = std::move(entry.data);
      entry.skipped = true;
    }
    credit = take_credit_locked();
  }
  if (!credit.empty()) grant_(credit);
  return {};
}

void Uploads::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

void Uploads::drop_staged_locked(const Entry& entry) {
  staged_bytes_ -= kEntryCost + (entry.refused ? 0 : entry.received);
}

Credit Uploads::take_credit_locked() {
  if (blocked_ == 0 && staged_bytes_ > staging_bytes_max_) return {};
  return std::exchange(held_credit_, {});
}

uint64_t Uploads::staged_bytes_for_test() const {
  std::lock_guard lock(mutex_);
  return staged_bytes_;
}

uint64_t Uploads::held_window_bytes_for_test() const {
  std::lock_guard lock(mutex_);
  return held_credit_.window_bytes;
}

}  // namespace waldo::server
