#include "server/fault.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "wire/plan_body.h"

namespace waldo::server {

namespace {

// The whole of `text` as a number, or false.
template <typename T>
bool parse_number(std::string_view text, T* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

Result<Fault> parse_fault(const std::string& text) {
  const auto wrong = [&] { return Status(StatusKind::kInvalid, "\"" + text + "\" is not a fault"); };
  const size_t at = text.find('@');
  const size_t colon = text.find(':', at == std::string::npos ? 0 : at);
  if (at == std::string::npos || colon == std::string::npos) return wrong();
  Fault fault;
  const std::string kind = text.substr(0, at);
  if (kind == "crash") {
    fault.kind = Fault::Kind::kCrash;
  } else if (kind != "oom") {
    return wrong();
  }
  if (!parse_number(std::string_view(text).substr(at + 1, colon - at - 1), &fault.queue.raw)) return wrong();
  if (!parse_number(std::string_view(text).substr(colon + 1), &fault.call.raw)) return wrong();
  return fault;
}

}  // namespace

Result<std::vector<Fault>> parse_faults(const std::string& text) {
  std::vector<Fault> faults;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    auto fault = parse_fault(part);
    if (!fault.ok()) return fault.status();
    faults.push_back(*fault);
  }
  return faults;
}

Status FaultPlan::check(QueueId queue, CallNumber call) const {
  for (const Fault& fault : faults_) {
    if (fault.queue != queue || fault.call != call) continue;
    if (fault.kind == Fault::Kind::kCrash) {
      std::fprintf(stderr, "waldo: worker: crash on request (WALDO_WORKER_FAULT)\n");
      std::abort();
    }
    StatusDetail detail;
    detail.error_class = static_cast<uint16_t>(wire::ErrorClass::kOutOfMemory);
    return Status(StatusKind::kDevice, "CUDA out of memory. (made to fail by WALDO_WORKER_FAULT)", detail);
  }
  return {};
}

}  // namespace waldo::server
