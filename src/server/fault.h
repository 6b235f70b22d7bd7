// Makes chosen calls fail, for tests of what happens then. Only the hidden WALDO_WORKER_FAULT sets them:
//   oom@QUEUE:CALL     that call of that queue fails with kDevice, out of memory, without running
//   crash@QUEUE:CALL   the worker process aborts there
// CALL is the call number. The executor asks, because a backend never learns call numbers.
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "base/status.h"

namespace waldo::server {

struct Fault {
  enum class Kind : uint8_t { kOutOfMemory, kCrash };
  Kind kind = Kind::kOutOfMemory;
  QueueId queue;
  CallNumber call;
};

// Several are separated by commas. kInvalid names the part that is wrong.
Result<std::vector<Fault>> parse_faults(const std::string& text);

// What the executor asks before each numbered record: ok, or the failure to report instead of running it.
class FaultPlan {
 public:
  FaultPlan() = default;
  explicit FaultPlan(std::vector<Fault> faults) : faults_(std::move(faults)) {}
  bool empty() const { return faults_.empty(); }
  Status check(QueueId queue, CallNumber call) const;

 private:
  std::vector<Fault> faults_;
};

}  // namespace waldo::server
