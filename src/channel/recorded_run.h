// For tests: what a session sends, made from a seed, and what a test compares with what came.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "base/bytes.h"
#include "base/prng.h"
#include "wire/frame.h"

namespace waldo::channel::test {

struct TestFrame {
  wire::FrameKind kind;
  wire::Lane lane;
  Buffer payload;
  friend bool operator==(const TestFrame&, const TestFrame&) = default;
};

// Every payload differs. `up` picks the kinds of a client, else a worker's. Sizes: mostly small, some up to
// `bytes_max`.
inline std::vector<TestFrame> make_run(uint64_t seed, bool up, size_t frames, size_t bytes_max) {
  Prng prng(seed * 2 + (up ? 1 : 0));
  std::vector<TestFrame> run;
  for (uint64_t i = 0; i < frames; ++i) {
    TestFrame frame;
    const bool bulk = prng.one_in(3);
    frame.lane = bulk ? wire::Lane::kBulk : wire::Lane::kRecords;
    frame.kind = up ? (bulk ? wire::FrameKind::kUploadData : wire::FrameKind::kRecords)
                    : (bulk ? wire::FrameKind::kReadData : wire::FrameKind::kDone);
    frame.payload.resize(prng.between(8, std::max<uint64_t>(8, prng.one_in(4) ? bytes_max : bytes_max / 8)));
    for (auto& byte : frame.payload) byte = static_cast<std::byte>(prng.next());
    std::memcpy(frame.payload.data(), &i, sizeof(i));
    run.push_back(std::move(frame));
  }
  return run;
}

// Order is kept within a lane; between lanes records may overtake.
inline std::vector<TestFrame> only(const std::vector<TestFrame>& frames, wire::Lane lane) {
  std::vector<TestFrame> result;
  std::copy_if(frames.begin(), frames.end(), std::back_inserter(result),
               [&](const TestFrame& frame) { return frame.lane == lane; });
  return result;
}
inline bool same_run(const std::vector<TestFrame>& sent, const std::vector<TestFrame>& seen) {
  return sent.size() == seen.size() && only(sent, wire::Lane::kRecords) == only(seen, wire::Lane::kRecords) &&
         only(sent, wire::Lane::kBulk) == only(seen, wire::Lane::kBulk);
}

}  // namespace waldo::channel::test
