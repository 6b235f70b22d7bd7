#include "base/os/shared_memory.h"

#include <cerrno>
#include <climits>
#include <string>
#include <utility>

#include "base/os/socket.h"

#ifdef __linux__
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace waldo::os {

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), fd_(std::move(other.fd_)) {}

#ifdef __linux__

namespace {

constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW;

Status failed(const char* what) {
  return Status(StatusKind::kUnsupported, std::string(what) + " shared memory: " + error_text(errno));
}

}  // namespace

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<SharedMemory> SharedMemory::create(size_t bytes) {
  UniqueFd fd(::memfd_create("waldo", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return failed("make");
  if (::fcntl(fd.get(), F_ADD_SEALS, kSealed) != 0) return failed("seal");
  return map(std::move(fd), bytes);
}

Result<SharedMemory> SharedMemory::open(int pid, int fd, size_t bytes) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  UniqueFd opened(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat status {};
  if (!opened.valid() || ::fstat(opened.get(), &status) != 0) return failed("open");
  const int seals = ::fcntl(opened.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSealed) != kSealed || status.st_size != static_cast<off_t>(bytes)) {
    return Status(StatusKind::kInvalid, "not the shared memory that was named: its size is another, or not sealed");
  }
  auto mapped = map(std::move(opened), bytes);
  if (mapped.ok()) mapped->close_fd();
  return mapped;
}

Result<SharedMemory> SharedMemory::map(UniqueFd fd, size_t bytes) {
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return failed("map");
  return SharedMemory(static_cast<std::byte*>(data), bytes, std::move(fd));
}

// Not the standard library's waiting: that takes it that nobody else has the word mapped.
void wait_while_equal(const std::atomic<uint32_t>& word, uint32_t value, std::chrono::milliseconds max) {
  const timespec at_most{max.count() / 1000, static_cast<long>(max.count() % 1000) * 1'000'000};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, value, &at_most, nullptr, 0);
}

void wake_all(const std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

#else

SharedMemory::~SharedMemory() = default;

Result<SharedMemory> SharedMemory::create(size_t) {
  return Status(StatusKind::kUnsupported, "no shared memory of this kind on this system");
}
Result<SharedMemory> SharedMemory::open(int, int, size_t bytes) { return create(bytes); }

void wait_while_equal(const std::atomic<uint32_t>&, uint32_t, std::chrono::milliseconds) {}
void wake_all(const std::atomic<uint32_t>&) {}

#endif

}  // namespace waldo::os
