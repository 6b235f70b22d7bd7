// sim [--seed N | --seeds N [--from N] [--jobs N]]: runs seeds; the first that breaks a promise is printed with the one
// command that runs it again. Exit code 1 then.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "sim/run.h"

namespace {

using waldo::sim::Outcome;

int run_one(const char* program, uint64_t seed, bool verbose) {
  const Outcome outcome = waldo::sim::run_seed(seed);
  if (verbose || !outcome.failure.empty()) {
    std::printf("seed %" PRIu64 ": %s%s, %" PRIu64 " links, %" PRIu64 " steps, %.1f s simulated, digest %016" PRIx64
                ", fingerprint %016" PRIx64 "\n",
                seed, outcome.failure.empty() ? "ok" : outcome.failure.c_str(),
                outcome.lost ? " (lost as planned)" : "", outcome.links, outcome.steps, outcome.seconds, outcome.digest,
                outcome.fingerprint);
  }
  if (outcome.failure.empty()) return 0;
  std::printf("again: %s --seed %" PRIu64 "\n", program, seed);
  std::fflush(stdout);
  return 1;
}

int run_range(const char* program, uint64_t from, uint64_t to, uint64_t step) {
  for (uint64_t seed = from; seed < to; seed += step) {
    if (run_one(program, seed, false) != 0) return 1;
  }
  return 0;
}

// Its threads run one at a time and hand over often, which costs twice as much between cores.
void stay_on_one_core(uint64_t job) {
#ifdef __linux__
  cpu_set_t allowed, one;
  CPU_ZERO(&one);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  uint64_t left = job % static_cast<uint64_t>(CPU_COUNT(&allowed));
  for (size_t core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || left-- > 0) continue;
    CPU_SET(core, &one);
    break;
  }
  (void)::sched_setaffinity(0, sizeof one, &one);
#else
  (void)job;
#endif
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = 0, seeds = 0, from = 1, jobs = 1;
  bool one = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    const uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--seed") == 0) seed = value, one = true;
    if (std::strcmp(argv[i], "--seeds") == 0) seeds = value;
    if (std::strcmp(argv[i], "--from") == 0) from = value;
    if (std::strcmp(argv[i], "--jobs") == 0) jobs = std::max<uint64_t>(value, 1);
  }
  if (one) return run_one(argv[0], seed, true);
  if (seeds == 0) {
    std::fprintf(stderr, "usage: sim --seed N | --seeds N [--from N] [--jobs N]\n");
    return 2;
  }
  std::vector<pid_t> children;
  for (uint64_t job = 0; job < jobs; ++job) {
    const pid_t child = ::fork();
    if (child == 0) {
      stay_on_one_core(job);
      const int code = run_range(argv[0], from + job, from + seeds, jobs);
      std::fflush(stdout);
      ::_exit(code);
    }
    children.push_back(child);
  }
  int code = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) code = 1;
  }
  if (code == 0) std::printf("%" PRIu64 " seeds from %" PRIu64 ": every promise held\n", seeds, from);
  return code;
}
