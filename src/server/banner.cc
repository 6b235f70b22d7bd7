#include "server/banner.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "wire/version.h"

namespace waldo::server {

Banner make_banner(const std::string& package_dir) {
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  return {WALDO_VERSION, static_cast<int>(wire::protocol_version), host, probe_devices(package_dir)};
}

std::string to_json(const Banner& banner) {
  nlohmann::ordered_json json = {{"waldo", banner.waldo}, {"protocol", banner.protocol}, {"host", banner.host}};
  json["devices"] = nlohmann::ordered_json::array();
  for (const auto& device : banner.devices) {
    json["devices"].push_back({{"name", device.name}, {"kind", device.kind}, {"total_memory", device.total_memory}});
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Banner> parse_banner(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const Status bad(StatusKind::kInvalid, "it does not say which waldo it is");
  if (!json.is_object()) return bad;
  const auto text_of = [](const nlohmann::json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto protocol = json.find("protocol");
  if (protocol == json.end() || !protocol->is_number_integer()) return bad;
  Banner banner{text_of(json, "waldo"), protocol->get<int>(), text_of(json, "host"), {}};
  const auto devices = json.find("devices");
  if (devices == json.end() || !devices->is_array()) return banner;
  for (const auto& entry : *devices) {
    if (!entry.is_object()) continue;
    const auto memory = entry.find("total_memory");
    const bool known = memory != entry.end() && memory->is_number_unsigned();
    banner.devices.push_back({text_of(entry, "name"), text_of(entry, "kind"), known ? memory->get<uint64_t>() : 0});
  }
  return banner;
}

Status check_version(const Banner& theirs, const std::string& host) {
  const int newest = static_cast<int>(wire::protocol_version), oldest = static_cast<int>(wire::protocol_version_oldest);
  if (theirs.protocol >= oldest && theirs.protocol <= newest) return {};
  const std::string there = "waldo there is " + theirs.waldo + " (protocol " + std::to_string(theirs.protocol) + ")";
  const std::string here = ", here " WALDO_VERSION " (protocol " + std::to_string(newest) + ")";
  const std::string what_to_do = theirs.protocol < oldest ? ". Try there: pip install waldo-gpu==" WALDO_VERSION
                                                          : ". Try here: pip install waldo-gpu==" + theirs.waldo;
  return Status(StatusKind::kUnsupported, host + ": " + there + here + what_to_do);
}

}  // namespace waldo::server
