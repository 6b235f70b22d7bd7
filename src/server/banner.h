// The few text lines before a link's frames. A bridge says one BANNER line; the caller may ping it to learn the round
// trip, and says go; from then on the bytes are the link's.
//
//   bridge -> caller   WALDO-BRIDGE {"waldo": "0.1.0", "protocol": 1, "host": "lab", "devices": [{"name", "kind",
//   "total_memory"}]} caller -> bridge   ping bridge -> caller   pong caller -> bridge   go
//
// Whatever a log-in prints before the BANNER is skipped, up to banner_noise_bytes_max. A daemon's socket answers
// {"want": "info"} with the same object.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/devices.h"

namespace waldo::server {

inline constexpr const char* kBannerMark = "WALDO-BRIDGE ";
inline constexpr size_t kBannerNoiseBytesMax = 64u << 10;
inline constexpr size_t kBannerLineBytesMax = 64u << 10;

struct Banner {
  std::string waldo;  // version, "0.1.0"
  int protocol = 0;   // wire's version
  std::string host;
  std::vector<ProbedDevice> devices;
};

Banner make_banner(const std::string& package_dir);  // of this host and installation
std::string to_json(const Banner& banner);           // one line, without its end
Result<Banner> parse_banner(const std::string& json);

// Ok, or in words who must be brought up to date (kUnsupported; exit code 5). `host` is what the user calls it.
Status check_version(const Banner& theirs, const std::string& host);

}  // namespace waldo::server
