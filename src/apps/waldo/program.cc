#include "apps/waldo/program.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/os/process.h"

namespace waldo::apps {

namespace fs = std::filesystem;

namespace {

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      const size_t swapped = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, swapped});
      diagonal = above;
    }
  }
  return row[b.size()];
}

bool is_on_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  if (path == nullptr || name.empty() || name.find('/') != std::string::npos) return false;
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

Status script_missing(const std::string& script) {
  std::string text = script + ": no such file";
  const fs::path path(script);
  std::vector<std::string> neighbours;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, error))
    neighbours.push_back(entry.path().filename().string());
  const std::string meant = nearest(path.filename().string(), neighbours);
  if (is_on_path(script)) {
    text += ". To run a command: waldo run -- " + script;
  } else if (!meant.empty()) {
    text += ". Did you mean " + (path.has_parent_path() ? (path.parent_path() / meant).string() : meant) + "?";
  } else {
    text += ". Try: waldo run path/to/script.py, -m MODULE, -c CODE, or -- COMMAND";
  }
  return Status(StatusKind::kInvalid, text);
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::min<size_t>(3, (word.size() + 1) / 2) + 1;  // two letters swapped count as two
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string likely_frontend(const std::vector<std::string>& program) {
  constexpr size_t kLooksAt = 64u << 10;
  if (program.empty()) return "torch";
  std::string text(kLooksAt, ' ');
  if (program[0] == "-c" && program.size() > 1) {
    text = program[1];
  } else {
    std::ifstream file(program[0], std::ios::binary);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
  }
  bool tensorflow = false;
  std::replace(text.begin(), text.end(), ';', '\n');  // of -c
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string verb, module;
    words >> verb >> module;
    if (verb != "import" && verb != "from") continue;
    module = module.substr(0, module.find_first_of(".,"));
    if (module == "torch") return "torch";
    tensorflow = tensorflow || module == "tensorflow" || module == "keras";
  }
  return tensorflow ? "tensorflow" : "torch";
}

std::string find_python() {
  if (const char* chosen = std::getenv("WALDO_PYTHON"); chosen != nullptr && chosen[0] != 0) return chosen;
  const std::string beside = (fs::path(os::executable_path()).parent_path() / "python3").string();
  return ::access(beside.c_str(), X_OK) == 0 ? beside : "python3";
}

Result<std::vector<std::string>> program_command(const std::vector<std::string>& program) {
  const auto invalid = [](const char* text) { return Status(StatusKind::kInvalid, text); };
  if (program.empty()) return invalid("nothing to run. Try: waldo run train.py");
  const std::string& first = program[0];
  if (first == "--") {
    if (program.size() == 1) return invalid("no command after --. Try: waldo run -- pytest -m gpu");
    return std::vector<std::string>(program.begin() + 1, program.end());
  }
  if (first == "-m" && program.size() == 1) return invalid("-m needs a module. Try: waldo run -m pytest");
  if (first == "-c" && program.size() == 1)
    return invalid("-c needs code. Try: waldo run -c \"import torch; print(torch.cuda.is_available())\"");
  std::vector<std::string> command = {find_python()};
  if (first != "-m" && first != "-c" && first != "-") {  // "-": the interpreter reads the program from its input
    std::error_code error;
    if (!fs::exists(first, error)) return script_missing(first);
  }
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

}  // namespace waldo::apps
