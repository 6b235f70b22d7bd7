#include "server/wishes.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "wire/limits.h"

namespace waldo::server {
namespace {

constexpr int64_t kGraceSecondsDefault = 15 * 60;

std::optional<int64_t> number_in(const nlohmann::json& object, const char* name) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

}  // namespace

Wishes parse_wishes(const std::string& hello_info) {
  const auto info = nlohmann::json::parse(hello_info, nullptr, /*allow_exceptions=*/false);
  Wishes wishes;
  wishes.gpus = static_cast<int>(std::clamp<int64_t>(number_in(info, "gpus").value_or(0), 0, 1 << 20));
  wishes.grace = std::chrono::seconds(
      std::clamp<int64_t>(number_in(info, "grace_s").value_or(kGraceSecondsDefault), 1, limits::grace_seconds_max));
  if (!info.is_object()) return wishes;
  if (info.contains("frontend") && info["frontend"] == "tensorflow") wishes.backend = "tensorflow";
  if (const auto offered = info.find("shared_memory"); offered != info.end()) {
    channel::SharedChunks::Offer offer;
    offer.pid = static_cast<int>(number_in(info, "pid").value_or(-1));
    offer.fd = static_cast<int>(number_in(*offered, "fd").value_or(-1));
    offer.bytes = static_cast<uint64_t>(number_in(*offered, "bytes").value_or(-1));
    wishes.shared_memory = offer;
  }
  return wishes;
}

}  // namespace waldo::server
