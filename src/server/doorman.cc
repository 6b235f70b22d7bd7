#include "server/doorman.h"

#include "channel/handshake.h"

namespace waldo::server {
namespace {

bool same(const wire::Secret& a, const wire::Secret& b) {  // takes equally long wherever they differ
  auto difference = std::byte{0};
  for (size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == std::byte{0};
}

}  // namespace

Status Doorman::admit(const wire::Hello& hello) {
  WALDO_TRY(channel::check_version(hello));
  if (!same(hello.secret, secret_)) return Status(StatusKind::kLost, "no session has this number and secret");
  if (hello.link_number <= newest_) return Status(StatusKind::kDisconnected, "a newer link has come since");
  newest_ = hello.link_number;
  return {};
}

}  // namespace waldo::server
