#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/os/entropy.h"
#include "base/os/fork.h"
#include "base/os/machine.h"
#include "base/os/memory.h"
#include "base/os/process.h"
#include "base/os/shared_memory.h"
#include "base/os/socket.h"

namespace waldo::os {
namespace {

Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

std::string read_line(int fd) {
  std::string line;
  std::array<std::byte, 1> one;
  while (read_exactly(fd, one, soon()).ok() && static_cast<char>(one[0]) != '\n') line += static_cast<char>(one[0]);
  return line;
}

// A private folder that is gone afterwards.
class Folder {
 public:
  Folder() { path_ = ::mkdtemp(name_); }
  ~Folder() { ::rmdir(path_.c_str()); }
  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  char name_[64] = "/tmp/waldo-test-XXXXXX";
  std::string path_;
};

TEST(Socket, DescriptorsAreCloseOnExec) {
  auto pair = make_socketpair();
  auto pipe = make_pipe();
  for (int fd : {pair->first.get(), pair->second.get(), pipe->first.get(), pipe->second.get()}) {
    EXPECT_EQ(::fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
}

TEST(Socket, ListenConnectAndPeer) {
  Folder folder;
  const auto path = folder.file("s");
  EXPECT_EQ(connect_unix(path).status().kind(), StatusKind::kDisconnected);
  auto listener = listen_unix(path);
  ASSERT_TRUE(listener.ok()) << listener.status().to_string();
  EXPECT_EQ(listen_unix(path).status().kind(), StatusKind::kInvalid);
  auto client = connect_unix(path);
  ASSERT_TRUE(client.ok());
  auto server = accept_unix(listener->get());
  ASSERT_TRUE(server.ok());
  auto peer = peer_credentials(server->get());
  EXPECT_EQ(peer->uid, ::getuid());
  EXPECT_EQ(peer->pid, ::getpid());
  ::unlink(path.c_str());
  EXPECT_EQ(listen_unix(std::string(200, 'x')).status().kind(), StatusKind::kInvalid);
}

// Goal: a name without a file is gone with its listener, and leaves nothing on the disk.
TEST(Socket, ANameWithoutAFile) {
  if (!names_without_file) GTEST_SKIP() << "Linux only";
  const std::string name = "@waldo-test-" + random_name();
  EXPECT_EQ(connect_unix(name).status().kind(), StatusKind::kDisconnected);
  {
    auto listener = listen_unix(name);
    ASSERT_TRUE(listener.ok()) << listener.status().to_string();
    EXPECT_EQ(listen_unix(name).status().kind(), StatusKind::kInvalid);
    EXPECT_FALSE(connect_unix(name + "0").ok());
    EXPECT_TRUE(connect_unix(name).ok());
    EXPECT_NE(::access(name.c_str(), F_OK), 0);
  }
  EXPECT_EQ(connect_unix(name).status().kind(), StatusKind::kDisconnected);
}

TEST(Socket, ADescriptorTravelsWithItsMessage) {
  auto pair = make_socketpair();
  auto pipe = make_pipe();
  ASSERT_TRUE(send_fd(pair->first.get(), as_bytes("take this"), pipe->second.get()).ok());
  auto got = receive_fd(pair->second.get(), 100);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(as_text(got->bytes), "take this");
  ASSERT_TRUE(got->fd.valid());
  EXPECT_EQ(::fcntl(got->fd.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  ASSERT_TRUE(write_all(got->fd.get(), as_bytes("hello\n"), soon()).ok());
  EXPECT_EQ(read_line(pipe->first.get()), "hello");
}

TEST(Socket, ReadingEndsAtTheDeadlineAndAtTheEnd) {
  auto pair = make_socketpair();
  std::array<std::byte, 4> bytes;
  EXPECT_EQ(read_exactly(pair->first.get(), bytes, std::chrono::steady_clock::now()).text(), "no answer in time");
  pair->second.reset();
  EXPECT_EQ(read_exactly(pair->first.get(), bytes, soon()).text(), "the other side closed the connection");
  EXPECT_EQ(write_all(pair->first.get(), as_bytes("x"), soon()).kind(), StatusKind::kDisconnected);  // and no SIGPIPE
}

// Goal: a child gets exactly the descriptors it was given, also when source and target numbers cross, and its own
// group.
TEST(Process, ChildGetsItsDescriptorsEnvironmentAndGroup) {
  auto first = make_pipe();
  auto second = make_pipe();
  SpawnOptions options;
  options.command = {"sh", "-c", "echo one $WALDO_TEST_WORD >&$A; echo two >&$B; ps -o pgid= -p $$ >&$B || true"};
  const int a = second->second.get(), b = first->second.get();  // crossed on purpose
  options.setenv = {{"WALDO_TEST_WORD", "word"}, {"A", std::to_string(a)}, {"B", std::to_string(b)}};
  if (a > 9 || b > 9) options.command = {"bash", "-c", options.command[2]};  // sh has one digit only
  options.fds = {{a, first->second.get()}, {b, second->second.get()}};
  options.group = ProcessGroup::kNew;
  auto pid = spawn(options);
  ASSERT_TRUE(pid.ok()) << pid.status().to_string();
  first->second.reset();
  second->second.reset();
  EXPECT_EQ(read_line(first->first.get()), "one word");
  EXPECT_EQ(read_line(second->first.get()), "two");
  EXPECT_EQ(*wait_process(*pid), 0);
}

TEST(Process, MissingProgramAndSignalAreSaid) {
  SpawnOptions options;
  options.command = {"waldo-no-such-program"};
  EXPECT_EQ(spawn(options).status().kind(), StatusKind::kInvalid);
  options.command = {"sh", "-c", "kill -9 $$"};
  EXPECT_EQ(*wait_process(*spawn(options)), 128 + 9);
  options.command = {"sh", "-c", "exit 7"};
  EXPECT_EQ(*wait_process(*spawn(options)), 7);
}

TEST(Fork, AChildKnowsThatItIsOne) {
  const ForkGuard guard;
  EXPECT_FALSE(guard.in_child());
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(guard.in_child() && !ForkGuard().in_child() ? 42 : 1);
  EXPECT_EQ(*wait_process(pid), 42);
  EXPECT_FALSE(guard.in_child());
}

// Goal: a child that lives on does not keep a connection of its parent open; one that is not registered stays open.
TEST(Fork, RegisteredDescriptorsAreClosedInAChild) {
  auto pair = make_socketpair();
  auto other = make_socketpair();
  const CloseInChild registered(pair->first.get());
  { const CloseInChild passing(other->first.get()); }
  const pid_t pid = ::fork();
  if (pid == 0) {
    const bool closed = ::fcntl(pair->first.get(), F_GETFD) < 0;
    const bool open = ::fcntl(other->first.get(), F_GETFD) >= 0;
    ::_exit(closed && open ? 42 : 1);
  }
  EXPECT_EQ(*wait_process(pid), 42);
  EXPECT_GE(::fcntl(pair->first.get(), F_GETFD), 0);
}

// Goal: the range is marked, its edges are not touched, and what is in it stays.
TEST(Memory, HugePagesAreAskedForAndNothingElseChanges) {
  constexpr size_t kBytes = 16u << 20;
  auto* mapped =
      static_cast<std::byte*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  std::memset(mapped, 7, kBytes);
  want_huge_pages(mapped + 1, kBytes - 2);
  EXPECT_EQ(std::count(mapped, mapped + kBytes, std::byte{7}), static_cast<std::ptrdiff_t>(kBytes));
  if (std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) {
    std::ifstream maps("/proc/self/smaps");
    const std::string text((std::istreambuf_iterator<char>(maps)), std::istreambuf_iterator<char>());
    EXPECT_NE(text.find(" hg"), std::string::npos);
  }
  munmap(mapped, kBytes);
  std::byte one{};
  want_huge_pages(&one, 1);
  want_huge_pages(nullptr, 0);
}

// Goal: two mappings are one memory; what could shrink under us, or has another size, is not taken.
TEST(SharedMemory, IsSharedAndCannotShrink) {
  auto made = os::SharedMemory::create(8192);
  ASSERT_TRUE(made.ok()) << made.status().text();
  auto opened = os::SharedMemory::open(::getpid(), made->fd(), 8192);
  ASSERT_TRUE(opened.ok()) << opened.status().text();
  made->data()[8191] = std::byte{7};
  EXPECT_EQ(opened->data()[8191], std::byte{7});
  EXPECT_EQ(opened->fd(), -1);
  EXPECT_NE(::ftruncate(made->fd(), 4096), 0);

  EXPECT_EQ(os::SharedMemory::open(::getpid(), made->fd(), 4096).status().kind(), StatusKind::kInvalid);
  std::FILE* file = std::tmpfile();
  ASSERT_EQ(::ftruncate(::fileno(file), 8192), 0);
  EXPECT_EQ(os::SharedMemory::open(::getpid(), ::fileno(file), 8192).status().kind(), StatusKind::kInvalid);
  std::fclose(file);
  EXPECT_EQ(os::SharedMemory::open(::getpid(), -1, 8192).status().kind(), StatusKind::kUnsupported);
}

TEST(Machine, SaysWhatItIs) {
  EXPECT_FALSE(cpu_name().empty());
  EXPECT_EQ(cpu_name().find('\n'), std::string::npos);
  EXPECT_GT(physical_memory_bytes(), uint64_t{1} << 26);
}

TEST(Entropy, BytesDiffer) {
  std::set<std::array<std::byte, 16>> seen;
  for (int i = 0; i < 100; ++i) {
    std::array<std::byte, 16> bytes{};
    fill_random(bytes);
    seen.insert(bytes);
  }
  EXPECT_EQ(seen.size(), 100u);
}

}  // namespace
}  // namespace waldo::os
