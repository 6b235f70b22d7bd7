#include "sim/run.h"

#include <fmt/format.h>

#include "sim/program.h"

namespace waldo::sim {

using namespace std::chrono_literals;

Plan plan_of(uint64_t seed) {
  Prng prng(seed ^ 0x71a2);
  Plan plan;
  plan.seed = seed;
  plan.devices = static_cast<int>(prng.between(1, 3));
  plan.bad_links = static_cast<int>(prng.below(25));
  if (prng.one_in(20)) {
    plan.outage_for_ever_from = std::chrono::milliseconds(prng.between(1, 20'000));
    plan.grace = std::chrono::seconds(prng.between(5, 60));
  }
  return plan;
}

Outcome run_seed(uint64_t seed) {
  return run_plan(plan_of(seed), static_cast<int>(Prng(seed ^ 0x0b5).between(1, 150)));
}

Outcome run_plan(const Plan& plan, int operations) {
  Outcome outcome;
  auto world = std::make_unique<World>(plan);
  Stage& stage = world->stage();
  std::vector<std::unique_ptr<Program>> programs;
  std::vector<Status> ends(static_cast<size_t>(plan.devices));
  std::vector<Thread> threads;
  for (size_t i = 0; i < ends.size(); ++i) {
    programs.push_back(std::make_unique<Program>(world->client().queue(i), plan.seed * 31 + i, operations));
    threads.emplace_back([&, i] { ends[i] = programs[i]->run(); });
  }
  try {
    for (Thread& thread : threads) thread.join();
    world->end_client();
    outcome.links = world->links();
    outcome.bytes_up = world->bytes_up();
    outcome.bytes_down = world->bytes_down();
    stage.run_until([&] { return world->worker_end().has_value(); });  // after its grace at the latest
    std::map<std::string, std::vector<std::string>> ran;
    for (const auto& call : world->backend().log()) ran[call.substr(0, call.find(':'))].push_back(call);
    for (size_t i = 0; i < ends.size(); ++i) {
      const bool lost_as_planned = plan.outage_for_ever_from && ends[i].kind() == StatusKind::kLost;
      outcome.lost |= lost_as_planned;
      if (!ends[i].ok() && !lost_as_planned) outcome.failure = ends[i].to_string();
      if (!programs[i]->failure().empty()) outcome.failure = programs[i]->failure();
      outcome.digest = outcome.digest * 31 + programs[i]->digest();
      if (ends[i].ok() && ran[std::to_string(i)] != programs[i]->calls()) {
        outcome.failure = fmt::format("queue {} ran {} calls, {} were made, or in another order", i,
                                      ran[std::to_string(i)].size(), programs[i]->calls().size());
      }
    }
    if (outcome.failure.empty() && !outcome.lost && world->backend().live_slots() != 0) {
      outcome.failure = fmt::format("{} slots were never freed", world->backend().live_slots());
    }
    outcome.steps = stage.steps();
    outcome.fingerprint = stage.fingerprint();
    outcome.seconds = std::chrono::duration<double>(stage.now().time_since_epoch()).count();
    world.reset();
  } catch (const Failure& failure) {
    outcome.failure = failure.what();
    outcome.links = world->links();
    // Its threads stand where they stood and use what is here: nothing of this run may go away.
    static_cast<void>(world.release());
    static_cast<void>(new auto(std::move(programs)));
    static_cast<void>(new auto(std::move(ends)));
    static_cast<void>(new auto(std::move(threads)));
  }
  return outcome;
}

}  // namespace waldo::sim
