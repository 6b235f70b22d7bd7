#include "server/collectives/net.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <memory>

namespace waldo::server {
namespace {

struct Parsed {
  IpAddress address;
  int prefix_bits = -1;  // -1: none given
};

Result<Parsed> parsed(const std::string& text) {
  const Status invalid(StatusKind::kInvalid,
                       fmt::format("\"{}\" is neither an address nor a net. Try: --collective-net 10.1.0.0/16", text));
  const size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address.ok()) return invalid;
  Parsed found{*address};
  if (slash == std::string::npos) return found;
  const char* const end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data() + slash + 1, end, found.prefix_bits);
  const bool fits = found.prefix_bits >= 0 && static_cast<size_t>(found.prefix_bits) <= 8 * found.address.size();
  if (error != std::errc() || last != end || !fits) return invalid;
  return found;
}

bool same_net(const IpAddress& a, const IpAddress& b, int prefix_bits) {
  if (a.family != b.family) return false;
  const auto whole = static_cast<size_t>(prefix_bits / 8);
  if (!std::equal(a.bytes.begin(), a.bytes.begin() + whole, b.bytes.begin())) return false;
  const int rest = prefix_bits % 8;
  return rest == 0 || ((a.bytes[whole] ^ b.bytes[whole]) >> (8 - rest)) == 0;
}

std::string list_of(std::span<const OwnAddress> own) {
  std::string list;
  for (const OwnAddress& one : own) {
    if (one.address.loopback()) continue;
    list += fmt::format("{}{}/{} ({})", list.empty() ? "" : ", ", one.address.text(), one.prefix_bits, one.interface);
  }
  return list.empty() ? "none but loopback" : list;
}

int bits_of(const sockaddr* mask, int family) {
  if (mask == nullptr) return family == AF_INET ? 32 : 128;
  sockaddr_storage storage{};
  std::memcpy(&storage, mask, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  storage.ss_family = static_cast<sa_family_t>(family);
  const auto bytes = IpAddress::of(storage);
  int bits = 0;
  for (const unsigned char byte : bytes->bytes) bits += std::popcount(byte);
  return bits;
}

}  // namespace

Result<IpAddress> IpAddress::parse(const std::string& text) {
  IpAddress address;
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, text.c_str(), address.bytes.data()) != 1) continue;
    address.family = family;
    return address;
  }
  return Status(StatusKind::kInvalid, fmt::format("\"{}\" is no address", text));
}

Result<IpAddress> IpAddress::of(const sockaddr_storage& storage) {
  IpAddress address;
  address.family = storage.ss_family;
  if (address.family == AF_INET) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in&>(storage).sin_addr, 4);
  } else if (address.family == AF_INET6) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr, 16);
  } else {
    return Status(StatusKind::kInvalid, "neither IPv4 nor IPv6");
  }
  return address;
}

std::string IpAddress::text() const {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(family, bytes.data(), text, sizeof(text));
  return text;
}

bool IpAddress::loopback() const {
  if (family == AF_INET) return bytes[0] == 127;
  static const std::array<unsigned char, 16> one = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return bytes == one;
}

std::vector<OwnAddress> own_addresses() {
  ifaddrs* listed = nullptr;
  if (::getifaddrs(&listed) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(listed, &::freeifaddrs);
  std::vector<OwnAddress> found;
  for (const ifaddrs* one = listed; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    const int family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    sockaddr_storage storage{};
    std::memcpy(&storage, one->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    found.push_back({*IpAddress::of(storage), one->ifa_name, bits_of(one->ifa_netmask, family)});
  }
  return found;
}

Status CollectiveNet::check(const std::string& text) { return parsed(text).status(); }

Result<CollectiveNet> CollectiveNet::parse(const std::string& text, std::span<const OwnAddress> own) {
  const auto given = parsed(text);
  if (!given.ok()) return given.status();
  CollectiveNet net;
  net.base_ = given->address;
  const bool whole = given->prefix_bits < 0;  // one address of ours
  for (const OwnAddress& one : own) {
    const bool in = whole ? one.address == given->address : same_net(one.address, given->address, given->prefix_bits);
    if (!in) continue;
    net.here_ = one.address;
    net.interface_ = one.interface;
    net.prefix_bits_ = whole ? one.prefix_bits : given->prefix_bits;
    return net;
  }
  if (whole && given->address.loopback()) {  // all of 127.0.0.0/8 is ours, said or not
    net.here_ = given->address;
    net.interface_ = "lo";
    net.prefix_bits_ = given->address.family == AF_INET ? 8 : 128;
    return net;
  }
  return Status(
      StatusKind::kInvalid,
      fmt::format("--collective-net is {}, but this host has no address {} it (its own: {}). Try: one of those, or the "
                  "net that all hosts share",
                  text, whole ? "like" : "in", list_of(own)));
}

bool CollectiveNet::holds(const IpAddress& address) const { return same_net(address, base_, prefix_bits_); }

std::string CollectiveNet::text() const {
  IpAddress first = base_;
  for (size_t bit = static_cast<size_t>(prefix_bits_); bit < 8 * first.size(); ++bit)
    first.bytes[bit / 8] &= static_cast<unsigned char>(~(0x80u >> (bit % 8)));
  return fmt::format("{}/{}", first.text(), prefix_bits_);
}

}  // namespace waldo::server
