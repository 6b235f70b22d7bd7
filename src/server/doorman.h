// Decides whether a HELLO may have a session's link. Pure; one thread.
//
// The newest link wins: a client that comes back says a higher link number than ever before, so a link that was slow on
// its way cannot take the session from one that came later.
#pragma once

#include "base/status.h"
#include "wire/messages.h"

namespace waldo::server {

class Doorman {
 public:
  explicit Doorman(const wire::Hello& first) : secret_(first.secret), newest_(first.link_number) {}

  // Ok: from now on this is the newest link. Else what REFUSE says: kLost for a wrong secret (the session is not
  // theirs), kDisconnected for a number that is not higher, kUnsupported (exit code 5) for another version.
  Status admit(const wire::Hello& hello);

 private:
  const wire::Secret secret_;
  uint64_t newest_;
};

}  // namespace waldo::server
