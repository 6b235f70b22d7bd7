#include "apps/waldo/program.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace waldo::apps {
namespace {

class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() {
    char path[] = "/tmp/waldo-test-XXXXXX";
    folder_ = ::mkdtemp(path);
    ::setenv("WALDO_PYTHON", "/the/python", 1);
    std::ofstream(folder_ + "/train.py") << "pass\n";
  }
  ~ProgramTest() override {
    std::filesystem::remove_all(folder_);
    ::unsetenv("WALDO_PYTHON");
  }
  std::string folder_;
  using Words = std::vector<std::string>;
};

TEST_F(ProgramTest, PutsThePythonBefore) {
  const std::string script = folder_ + "/train.py";
  EXPECT_EQ(*program_command({script, "--lr", "1"}), (Words{"/the/python", script, "--lr", "1"}));
  EXPECT_EQ(*program_command({"-m", "pytest", "-q"}), (Words{"/the/python", "-m", "pytest", "-q"}));
  EXPECT_EQ(*program_command({"-c", "pass"}), (Words{"/the/python", "-c", "pass"}));
  EXPECT_EQ(*program_command({"-", "a"}), (Words{"/the/python", "-", "a"}));
  EXPECT_EQ(*program_command({"--", "sh", "-c", "x"}), (Words{"sh", "-c", "x"}));
}

TEST_F(ProgramTest, SaysWhatToTry) {
  const auto text = [](const Words& program) { return program_command(program).status().text(); };
  EXPECT_NE(text({folder_ + "/trian.py"}).find("Did you mean " + folder_ + "/train.py?"), std::string::npos);
  EXPECT_NE(text({"ls"}).find("waldo run -- ls"), std::string::npos);
  EXPECT_NE(text({"/no/such/folder/x.py"}).find("no such file"), std::string::npos);
  for (const Words& program : {Words{}, Words{"-m"}, Words{"-c"}, Words{"--"}}) {
    EXPECT_NE(text(program).find("Try: waldo run"), std::string::npos);
  }
}

TEST_F(ProgramTest, GuessesTheFrontEndByTheImports) {
  const auto guess = [&](const char* text) {
    std::ofstream(folder_ + "/a.py") << text;
    return likely_frontend({folder_ + "/a.py", "--epochs", "3"});
  };
  EXPECT_EQ(guess("import numpy\nimport tensorflow as tf\n"), "tensorflow");
  EXPECT_EQ(guess("def f():\n    from keras.layers import Dense\n"), "tensorflow");
  EXPECT_EQ(guess("import torch\nimport tensorflow\n"), "torch");
  EXPECT_EQ(guess("# import tensorflow\n"), "torch");
  EXPECT_EQ(likely_frontend({"-c", "import os; import tensorflow as tf"}), "tensorflow");
  EXPECT_EQ(likely_frontend({"-m", "tensorflow"}), "torch");
  EXPECT_EQ(likely_frontend({}), "torch");
}

TEST(Nearest, FindsTypingMistakesOnly) {
  EXPECT_EQ(nearest("rnu", {"run", "ls", "down"}), "run");
  EXPECT_EQ(nearest("dwon", {"run", "ls", "down"}), "down");
  EXPECT_EQ(nearest("bananas", {"run", "ls", "down"}), "");
}

}  // namespace
}  // namespace waldo::apps
