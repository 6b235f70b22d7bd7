#include "client/counters.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace waldo::client {
namespace {

using testing::HasSubstr;

Counters some() {
  Counters counters;
  counters.calls = 1200;
  counters.messages = 90;
  counters.waits = 5;
  counters.bytes_up = 31'000'000;
  counters.bytes_down = 2'048;
  counters.waits_at = {{"/home/a/train.py", 12, 1, 0.5}, {"/home/a/train.py", 88, 4, 2.0}};
  return counters;
}

class WriteStats : public testing::Test {
 protected:
  WriteStats() {
    char name[] = "/tmp/waldo-counters-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~WriteStats() override {
    unsetenv("WALDO_STATS");
    std::filesystem::remove_all(folder_);
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string folder_;
};

TEST(Stats, JsonHasTheFiguresAndTheLongestWaitFirst) {
  const auto json = nlohmann::json::parse(stats_json(some()));
  EXPECT_EQ(json["calls"], 1200);
  EXPECT_EQ(json["messages"], 90);
  EXPECT_EQ(json["waits"], 5);
  EXPECT_EQ(json["bytes_up"], 31'000'000);
  EXPECT_EQ(json["bytes_down"], 2'048);
  ASSERT_EQ(json["waits_at"].size(), 2u);
  EXPECT_EQ(json["waits_at"][0],
            (nlohmann::json{{"file", "/home/a/train.py"}, {"line", 88}, {"count", 4}, {"seconds", 2.0}}));
}

// Goal: a file name is bytes; statistics at exit must not throw on one that is not UTF-8.
TEST(Stats, JsonSurvivesAFileNameThatIsNotText) {
  Counters counters = some();
  counters.waits_at[0].file = "\xff\xfe.py";
  EXPECT_TRUE(nlohmann::json::accept(stats_json(counters)));
}

TEST(Stats, TableNamesTotalsAndPlaces) {
  const std::string table = stats_table(some());
  EXPECT_THAT(table, HasSubstr("1200 calls · 90 messages · 5 waits (500.0 ms each) · 31.0 MB up · 2048 B down"));
  EXPECT_THAT(table, HasSubstr("/home/a/train.py:88"));
  EXPECT_LT(table.find(":88"), table.find(":12"));
}

TEST_F(WriteStats, PutsJsonInTheNamedFile) {
  const std::string path = folder_ + "/stats.json";
  setenv("WALDO_STATS", path.c_str(), 1);
  write_stats(some(), true);
  EXPECT_EQ(content(path), stats_json(some()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);  // no temporary left
}

// Goal: a helper process that never had a device does not overwrite what the program's own process wrote.
TEST_F(WriteStats, AProcessThatNeverConnectedLeavesTheFileAlone) {
  const std::string path = folder_ + "/stats.json";
  setenv("WALDO_STATS", path.c_str(), 1);
  write_stats(Counters{}, false);
  EXPECT_TRUE(nlohmann::json::accept(content(path)));
  write_stats(some(), true);
  write_stats(Counters{}, false);
  EXPECT_EQ(content(path), stats_json(some()));
}

TEST_F(WriteStats, AFileThatCannotBeWrittenIsOneLine) {
  setenv("WALDO_STATS", (folder_ + "/no/such/folder/stats.json").c_str(), 1);
  testing::internal::CaptureStderr();
  write_stats(some(), true);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("could not be written"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
}

// Goal: the same for a disk that is full. Method: a file size limit, which fails the write as a full disk does.
TEST_F(WriteStats, AFullDiskIsOneLineAndLeavesTheOldFile) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  const std::string path = folder_ + "/stats.json";
  std::ofstream(path) << "old";
  // The temporary file beside it is what fills up.
  std::filesystem::create_symlink("/dev/full", path + "." + std::to_string(getpid()) + ".tmp");
  setenv("WALDO_STATS", path.c_str(), 1);
  testing::internal::CaptureStderr();
  write_stats(some(), true);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("No space left"));
  EXPECT_EQ(content(path), "old");
}

// Goal: `--stats=/dev/stdout` writes there; as root it must not put a file in the place of the device.
TEST_F(WriteStats, ADeviceOrALinkIsWrittenTo) {
  const std::string file = folder_ + "/stats.json", link = folder_ + "/link";
  std::ofstream(file) << std::string(100'000, ' ');
  std::filesystem::create_symlink(file, link);
  setenv("WALDO_STATS", link.c_str(), 1);
  write_stats(some(), true);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(content(file), stats_json(some()));

  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  setenv("WALDO_STATS", pipe.c_str(), 1);
  write_stats(some(), true);
  std::string got(10'000, '\0');
  got.resize(static_cast<size_t>(std::max<ssize_t>(0, ::read(reader, got.data(), got.size()))));
  EXPECT_EQ(got, stats_json(some()));
  ::close(reader);
}

}  // namespace
}  // namespace waldo::client
