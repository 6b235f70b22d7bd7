// What the user wants run, and with which interpreter.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace waldo::apps {

// $WALDO_PYTHON, else the python3 beside this binary (a virtual environment's), else python3 on PATH.
std::string find_python();

// The command to start. kInvalid: nothing to run, or the script is not there; the text says what to try.
Result<std::vector<std::string>> program_command(const std::vector<std::string>& program);

// "tensorflow" or "torch": what a worker should get ready for, by what the script or code imports. A guess that costs
// a second when it is wrong.
std::string likely_frontend(const std::vector<std::string>& program);

// The word of `candidates` that somebody who typed `word` may have meant; "" when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace waldo::apps
