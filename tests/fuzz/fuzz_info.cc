// The JSON that a peer says: what stands in HELLO and in WELCOME, and the bridge's BANNER.
#include "client/connect.h"
#include "fuzz/input.h"
#include "server/banner.h"
#include "server/wishes.h"
#include "wire/limits.h"

using namespace waldo;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto welcome = client::parse_welcome_info(text, "lab");
  if (welcome.ok()) WALDO_CHECK(welcome->worker.devices.size() <= limits::queue_count_max);
  WALDO_CHECK(server::parse_wishes(text).grace.count() <= limits::grace_seconds_max);
  const auto banner = server::parse_banner(text);
  if (banner.ok()) static_cast<void>(server::check_version(*banner, "lab"));
  return 0;
}
