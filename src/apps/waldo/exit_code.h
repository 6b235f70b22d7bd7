// What the command says to scripts. `run` returns the program's own code, or one of these.
#pragma once

namespace waldo::apps {

enum ExitCode : int {
  kExitOk = 0,
  kExitOther = 1,
  kExitUsage = 2,
  kExitUnreachable = 3,
  kExitAuthentication = 4,  // login or host key
  kExitVersion = 5,
  kExitDeviceLost = 9,
};

}  // namespace waldo::apps
