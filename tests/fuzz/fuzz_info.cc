// The JSON that a peer says: what stands in WELCOME, and the bridge's BANNER.
#include "client/connect.h"
#include "fuzz/input.h"
#include "server/banner.h"
#include "wire/limits.h"

using namespace waldo;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto worker = client::parse_worker_info(text, "lab");
  if (worker.ok()) WALDO_CHECK(worker->devices.size() <= limits::queue_count_max);
  const auto banner = server::parse_banner(text);
  if (banner.ok()) static_cast<void>(server::check_version(*banner, "lab"));
  return 0;
}
