// Collectives of a worker: its groups of ranks, a thread per group and lane that runs what was recorded, and which
// storages are still in use by them.
//
// A collective's operator only puts a job into its group's order and returns, so that the queue goes on with what does
// not need it: backward overlaps with the reduction of buckets. Whatever touches a storage of a job that has not ended
// waits for it (settle()), so no other order is ever seen than the recorded one, and no `wait()` needs to travel.
//
// Failure: of a job, is taken by the next call that asks, once for its whole group; later collectives of the group
// fail. Threads: any queue's executor thread calls; jobs run on the group's own. Waits go through base/blocking.h.
// Memory:  a job holds its tensors; FREE of their slots waits for nothing.
#pragma once

#include <ATen/core/TensorBody.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/blocking.h"
#include "base/status.h"
#include "server/collectives/mesh.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend {

struct Group {
  uint32_t number = 0;
  int rank = 0, size = 1;
  server::Milliseconds timeout{0};
  std::unique_ptr<server::Mesh> mesh;
};

class Collectives {
 public:
  // Sends end when the other side receives, so they must not hold up our own receives.
  enum class Lane : uint8_t { kCollective = 0, kSend = 1, kReceive = 2 };
  struct Use {
    const c10::StorageImpl* storage;
    bool writes;
  };
  struct Job {
    // Both on the recording thread, once nothing conflicts, and both may be empty. announce() comes in the lane's
    // order, once the ranks are connected, with a lock held: it must not wait.
    std::function<void(server::Mesh&)> begin, announce;
    std::function<Status(server::Mesh&)> run;
    std::vector<Use> uses;
    std::string name;
  };

  explicit Collectives(std::string listen_at = "127.0.0.1");
  ~Collectives();  // closes every group; waits for its threads

  // Commands (wire/plan_body.h). `answer`: of kOpenGroup.
  Status command(const wire::Command& command, wire::Command& answer);

  // The group, or why collectives of it cannot be: unknown, or failed.
  Result<const Group*> find(int64_t number);
  // Waits until no job of another lane or group conflicts with `uses`, then puts the job last in its lane.
  Status record(const Group& group, Lane lane, Job job);

  // Hot: 0 when no job is under way and none has failed.
  bool any() const { return live_count_.load(std::memory_order_acquire) != 0; }
  // Before a call that uses this storage; not ok: a job failed, here or elsewhere.
  Status settle(const c10::StorageImpl* storage);
  Status settle_all();

 private:
  struct Running;
  struct Line {  // the order of a lane
    std::deque<std::shared_ptr<Running>> jobs;
    Thread thread;
  };
  struct Member;  // a group and its lines

  Status open(const wire::Command& command, wire::Command& answer);
  Status join(const wire::Command& command);
  Status leave(uint32_t number, server::Milliseconds at_most);
  Status abort(uint32_t number);
  void push(Member& member, Lane lane, std::shared_ptr<Running> job);  // mutex_ held
  static void announce(Member& member, Running& job);                  // mutex_ held
  static void joined(Member& member);                                  // mutex_ held
  void run_line(Member& member, Lane lane);
  Status take_failure();  // mutex_ held
  template <typename Conflicts>
  Status wait_for(std::unique_lock<std::mutex>& lock, const Conflicts& conflicts);

  const std::string listen_at_;
  std::atomic<size_t> live_count_{0};  // of live_

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::list<std::shared_ptr<Running>> live_;  // not ended, or failed and not told
  std::unordered_map<uint32_t, std::unique_ptr<Member>> members_;
};

// The queue whose call runs on this thread, for the operators (wire/collectives.h), which are the process's.
class CurrentCollectives {
 public:
  explicit CurrentCollectives(Collectives& collectives);
  ~CurrentCollectives();
  CurrentCollectives(const CurrentCollectives&) = delete;
  CurrentCollectives& operator=(const CurrentCollectives&) = delete;
};
Collectives& current_collectives();  // throws when there is none

void register_collectives();

// Thrown by the operators, so that a Status passes through the dispatcher whole.
struct CollectiveFailure : std::runtime_error {
  explicit CollectiveFailure(Status why) : std::runtime_error(why.text()), status(std::move(why)) {}
  Status status;
};

}  // namespace waldo::torch_backend
