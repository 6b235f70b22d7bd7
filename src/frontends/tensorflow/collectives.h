// Reduce, gather and broadcast between devices of this process: what MirroredStrategy's replicas meet in. The last to
// arrive records one call per input on the first device's queue, and one alias for each other device: nobody waits for
// the worker.
//
// Who has not arrived when its step is cancelled is not waited for: the others get CANCELLED too, from their own step.
// Threads: any; a replica that waits holds no thread.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "frontends/tensorflow/device.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace waldo::tensorflow_frontend {

void register_collectives();

// Where the members of a group meet. One for the process.
class MeetingPoint {
 public:
  using Done = tensorflow::AsyncOpKernel::DoneCallback;
  struct Member {
    FarDevice* device = nullptr;
    OpKernelContext* context = nullptr;
    Done done;
    bool gives = true;  // false: a broadcast's receiver
    tensorflow::CancellationToken token = tensorflow::CancellationManager::kInvalidToken;
  };
  using Key = std::tuple<std::string, int, int>;  // what is done, group, instance

  static MeetingPoint& instance();

  // The members, by device, when this one completes them; else it waits here, and `member` is moved from. A device
  // that is there already is of the next round.
  std::vector<Member> join(const Key& key, size_t size, Member member);
  // Takes a waiting member away; false: it is not here any more.
  bool leave(const Key& key, const OpKernelContext* context, Member* member);

 private:
  std::mutex mutex_;
  std::map<Key, std::list<std::vector<Member>>> rounds_;  // mutex_
};

}  // namespace waldo::tensorflow_frontend
