#include "server/backends/torch/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/log.h"
#include "server/backends/torch/errors.h"
#include "server/collectives/load_mesh.h"
#include "wire/collectives.h"

namespace waldo::torch_backend {
namespace {

constexpr int64_t kTimeoutMax = int64_t{30} * 24 * 3600 * 1000;

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

// What the mesh says, as the exception c10d raises.
Status as_raised(const Group& group, std::string_view name, const Status& why) {
  if (why.ok() || why.kind() == StatusKind::kDevice) return why;
  return device_error(wire::ErrorClass::kDistBackend,
                      fmt::format("{} on rank {} of {} failed: {}", name, group.rank, group.size, why.text()), name);
}

thread_local Collectives* t_current = nullptr;

}  // namespace

struct Collectives::Running {
  Job job;
  const Member* member;
  Lane lane;
  bool joins = false;  // connects the ranks
  bool done = false;
  Status status;  // once done
};

struct Collectives::Member {
  Group group;
  std::array<Line, 3> lines;
  Status failure;          // of a job; collectives after it fail
  bool connected = false;  // the ranks are
  bool closing = false;    // its threads end when their jobs have
};

Collectives::Collectives(std::string listen_at) : listen_at_(std::move(listen_at)) {}

Collectives::~Collectives() {
  std::vector<uint32_t> numbers;
  for (const auto& [number, member] : members_) numbers.push_back(number);
  for (const uint32_t number : numbers) static_cast<void>(leave(number, server::Milliseconds(0)));
}

Status Collectives::command(const wire::Command& command, wire::Command& answer) {
  switch (command.kind) {
    case wire::CommandKind::kOpenGroup:
      return open(command, answer);
    case wire::CommandKind::kJoinGroup:
      return join(command);
    case wire::CommandKind::kLeaveGroup:
      if (command.value > static_cast<uint64_t>(kTimeoutMax)) return invalid("a time that is out of range");
      return leave(command.generator, server::Milliseconds(command.value));
    case wire::CommandKind::kAbortGroup:
      return abort(command.generator);
    default:
      return invalid("no command of collectives");
  }
}

Status Collectives::open(const wire::Command& command, wire::Command& answer) {
  if (command.ints.size() != 3) return invalid("a group without rank, size and timeout");
  const auto [rank, size, timeout] = std::tuple(command.ints[0], command.ints[1], command.ints[2]);
  if (size < 1 || size > wire::group_size_max || rank < 0 || rank >= size || timeout < 1 || timeout > kTimeoutMax)
    return invalid("a group whose rank, size or timeout is out of range");
  auto member = std::make_unique<Member>();
  member->group = {command.generator, static_cast<int>(rank), static_cast<int>(size), server::Milliseconds(timeout),
                   nullptr};
  auto mesh = server::make_mesh({member->group.rank, member->group.size, listen_at_, member->group.timeout});
  if (!mesh.ok()) return as_raised(member->group, "the making of a group", mesh.status());
  member->group.mesh = std::move(*mesh);
  answer.bytes = wire::encode_addresses(member->group.mesh->addresses());
  std::lock_guard lock(mutex_);
  if (!members_.emplace(command.generator, std::move(member)).second) return invalid("a group of that number is there");
  return {};
}

// Connecting waits for the other ranks: the first job of the group.
Status Collectives::join(const wire::Command& command) {
  auto addresses = wire::decode_addresses(command.bytes);
  if (!addresses.ok()) return addresses.status();
  std::lock_guard lock(mutex_);
  const auto found = members_.find(command.generator);
  if (found == members_.end()) return invalid("there is no such group");
  Member& member = *found->second;
  auto job = std::make_shared<Running>();
  job->member = &member;
  job->lane = Lane::kCollective;
  job->joins = true;
  job->job.name = "the making of a group";
  job->job.run = [addresses = std::move(*addresses)](server::Mesh& mesh) { return mesh.connect(addresses); };
  push(member, Lane::kCollective, std::move(job));
  return {};
}

Result<const Group*> Collectives::find(int64_t number) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(static_cast<uint32_t>(number));
  if (number < 0 || number > UINT32_MAX || found == members_.end()) return invalid("there is no such group");
  if (!found->second->failure.ok()) {
    return device_error(wire::ErrorClass::kDistBackend,
                        "the process group has failed before: " + found->second->failure.text());
  }
  return &found->second->group;
}

Status Collectives::record(const Group& group, Lane lane, Job job) {
  std::unique_lock lock(mutex_);
  Member& member = *members_.at(group.number);
  const auto conflicts = [&](const Running& running) {
    if (running.member == &member && running.lane == lane) return false;  // they run in this order anyway
    for (const Use& mine : job.uses) {
      for (const Use& theirs : running.job.uses) {
        if (mine.storage == theirs.storage && (mine.writes || theirs.writes)) return true;
      }
    }
    // The first message needs the connections.
    return lane != Lane::kCollective && running.member == &member && running.job.uses.empty();
  };
  WALDO_TRY(wait_for(lock, conflicts));
  if (job.begin) {
    lock.unlock();
    job.begin(*member.group.mesh);
    lock.lock();
  }
  auto running = std::make_shared<Running>();
  running->job = std::move(job);
  running->member = &member;
  running->lane = lane;
  push(member, lane, std::move(running));
  return {};
}

void Collectives::announce(Member& member, Running& job) {
  if (const auto say = std::exchange(job.job.announce, nullptr)) say(*member.group.mesh);
}

void Collectives::push(Member& member, Lane lane, std::shared_ptr<Running> job) {
  Line& line = member.lines[static_cast<size_t>(lane)];
  if (member.connected) announce(member, *job);
  live_.push_back(job);
  live_count_.store(live_.size(), std::memory_order_release);
  line.jobs.push_back(std::move(job));
  if (!line.thread.joinable()) line.thread = Thread([this, &member, lane] { run_line(member, lane); });
  changed_.notify_all();
}

// What was recorded while the ranks were connecting is announced now, in order.
void Collectives::joined(Member& member) {
  member.connected = true;
  for (const auto& job : member.lines[static_cast<size_t>(Lane::kCollective)].jobs) {
    announce(member, *job);
  }
}

void Collectives::run_line(Member& member, Lane lane) {
  Line& line = member.lines[static_cast<size_t>(lane)];
  std::unique_lock lock(mutex_);
  for (;;) {
    block(lock, changed_, [&] { return member.closing || !line.jobs.empty(); });
    if (line.jobs.empty()) return;
    const std::shared_ptr<Running> job = std::move(line.jobs.front());
    line.jobs.pop_front();
    Status status = member.failure;
    if (status.ok()) {
      lock.unlock();
      status = guarded(job->job.name, [&] { return job->job.run(*member.group.mesh); });
      job->job.run = nullptr;  // and with it the tensors
      status = as_raised(member.group, job->job.name, status);
      lock.lock();
    } else {
      job->job.run = nullptr;
    }
    if (job->joins && status.ok()) joined(member);
    if (!status.ok() && member.failure.ok()) {
      log_debug("group {}: {}", member.group.number, status.text());
      // What the ranks disagree about they know, and may go on; a broken mesh stays so.
      if (static_cast<wire::ErrorClass>(status.detail().error_class) == wire::ErrorClass::kDistBackend)
        member.failure = status;
    }
    job->done = true;
    job->status = std::move(status);
    if (job->status.ok()) live_.remove(job);
    live_count_.store(live_.size(), std::memory_order_release);
    changed_.notify_all();
  }
}

// One failure is told once: with it go those of the jobs behind it.
Status Collectives::take_failure() {
  Status failure;
  const Member* of = nullptr;
  live_.remove_if([&](const std::shared_ptr<Running>& job) {
    if (!job->done || (of != nullptr && job->member != of)) return false;
    if (of == nullptr) failure = job->status;
    of = job->member;
    return true;
  });
  live_count_.store(live_.size(), std::memory_order_release);
  return failure;
}

// Until no job that has not ended conflicts; a failed one ends the wait.
template <typename Conflicts>
Status Collectives::wait_for(std::unique_lock<std::mutex>& lock, const Conflicts& conflicts) {
  block(lock, changed_, [&] {
    return std::none_of(live_.begin(), live_.end(), [&](const auto& job) { return !job->done && conflicts(*job); }) ||
           std::any_of(live_.begin(), live_.end(), [](const auto& job) { return job->done; });
  });
  return take_failure();
}

Status Collectives::settle(const c10::StorageImpl* storage) {
  std::unique_lock lock(mutex_);
  return wait_for(lock, [&](const Running& job) {
    return std::any_of(job.job.uses.begin(), job.job.uses.end(),
                       [&](const Use& use) { return use.storage == storage; });
  });
}

Status Collectives::settle_all() {
  std::unique_lock lock(mutex_);
  return wait_for(lock, [](const Running&) { return true; });
}

Status Collectives::leave(uint32_t number, server::Milliseconds at_most) {
  std::unique_ptr<Member> member;
  {
    std::unique_lock lock(mutex_);
    const auto found = members_.find(number);
    if (found == members_.end()) return {};
    block_for(lock, changed_, at_most, [&] {
      return std::none_of(live_.begin(), live_.end(),
                          [&](const auto& job) { return job->member == found->second.get() && !job->done; });
    });
    member = std::move(found->second);
    members_.erase(found);
    member->closing = true;
    if (member->failure.ok())  // what has not begun never will
      member->failure = device_error(wire::ErrorClass::kDistBackend, "the process group was destroyed");
    changed_.notify_all();
  }
  member->group.mesh->close();
  for (Line& line : member->lines) {
    if (line.thread.joinable()) line.thread.join();
  }
  std::lock_guard lock(mutex_);
  Status untold;
  live_.remove_if([&](const auto& job) {
    if (job->member != member.get()) return false;
    if (untold.ok()) untold = job->status;
    return true;
  });
  live_count_.store(live_.size(), std::memory_order_release);
  return untold;
}

Status Collectives::abort(uint32_t number) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(number);
  if (found == members_.end()) return {};
  if (found->second->failure.ok())
    found->second->failure = device_error(wire::ErrorClass::kDistBackend, "the process group was aborted");
  found->second->group.mesh->close();
  return {};
}

CurrentCollectives::CurrentCollectives(Collectives& collectives) { t_current = &collectives; }
CurrentCollectives::~CurrentCollectives() { t_current = nullptr; }

Collectives& current_collectives() {
  if (t_current == nullptr) throw CollectiveFailure(invalid("a collective outside of a queue"));
  return *t_current;
}

}  // namespace waldo::torch_backend
