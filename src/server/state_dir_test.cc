#include "server/state_dir.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "server/package_dir.h"

namespace waldo::server {
namespace {

namespace fs = std::filesystem;

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    char path[] = "/tmp/waldo-test-XXXXXX";
    folder_ = ::mkdtemp(path);
    ::setenv("XDG_STATE_HOME", folder_.c_str(), 1);
    ::setenv("TMPDIR", folder_.c_str(), 1);
  }
  ~FolderTest() override {
    fs::remove_all(folder_);
    ::unsetenv("XDG_STATE_HOME");
    ::unsetenv("TMPDIR");
  }
  static mode_t mode_of(const std::string& path) {
    struct stat info {};
    ::lstat(path.c_str(), &info);
    return info.st_mode & 0777;
  }
  std::string folder_;
};

TEST_F(FolderTest, DaemonFolderIsPrivateAndInTheStateHome) {
  auto dir = make_daemon_dir();
  ASSERT_TRUE(dir.ok());
  EXPECT_TRUE(dir->starts_with(folder_ + "/waldo/"));
  EXPECT_EQ(mode_of(*dir), 0700u);
  EXPECT_LE(daemon_socket_path(*dir).size(), 100u);
}

// Goal: a path that no socket address can hold falls back to one that can.
TEST_F(FolderTest, LongPathsFallBack) {
  ::setenv("XDG_STATE_HOME", (folder_ + "/" + std::string(90, 'x')).c_str(), 1);
  auto dir = make_daemon_dir();
  ASSERT_TRUE(dir.ok());
  EXPECT_EQ(*dir, "/tmp/waldo-" + std::to_string(::geteuid()));
}

TEST_F(FolderTest, AFolderOpenToOthersIsClosedAndALinkRefused) {
  const std::string open = folder_ + "/open";
  ::mkdir(open.c_str(), 0777);
  EXPECT_TRUE(make_private_dir(open).ok());
  EXPECT_EQ(mode_of(open), 0700u);
  const std::string link = folder_ + "/link";
  fs::create_directory_symlink(open, link);
  EXPECT_EQ(make_private_dir(link).kind(), StatusKind::kInvalid);
}

// Goal: what a killed run left is removed by the next one; a live run's folder is not.
TEST_F(FolderTest, AbandonedRunsAreRemoved) {
  const std::string abandoned = folder_ + "/waldo-run-abcdef";
  fs::create_directory(abandoned);
  std::ofstream(abandoned + "/lock").put('x');
  std::string gone;
  {
    auto alive = RunDir::make();
    ASSERT_TRUE(alive.ok());
    EXPECT_FALSE(fs::exists(abandoned));
    auto next = RunDir::make();
    ASSERT_TRUE(next.ok());
    EXPECT_TRUE(fs::exists(alive->path()));
    gone = alive->path();
  }
  EXPECT_FALSE(fs::exists(gone));
}

TEST_F(FolderTest, FindsThePackage) {
  fs::create_directories(folder_ + "/a/bin");
  std::ofstream(folder_ + "/a/libwaldo.so").put('x');
  EXPECT_EQ(find_package_dir_from("", folder_ + "/a/bin/waldo"), folder_ + "/a");
  fs::create_directories(folder_ + "/venv/bin");
  fs::create_directories(folder_ + "/venv/lib/python3.11/site-packages/waldo");
  std::ofstream(folder_ + "/venv/lib/python3.11/site-packages/waldo/libwaldo.so").put('x');
  EXPECT_EQ(find_package_dir_from("", folder_ + "/venv/bin/waldo"),
            folder_ + "/venv/lib/python3.11/site-packages/waldo");
  EXPECT_EQ(find_package_dir_from("/given", folder_ + "/a/bin/waldo"), "/given");
  EXPECT_EQ(find_package_dir_from("", folder_ + "/elsewhere/waldo"), "");
}

}  // namespace
}  // namespace waldo::server
