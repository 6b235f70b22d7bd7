// Where on this host collectives may listen, and whom they may reach: what the host's owner said with --collective-net.
//
//   "127.0.0.1"          the default: workers of this machine only
//   "10.1.0.0/16"        a net: listen at this host's address in it, reach what lies in it
//   "10.1.2.3"           an address of this host: the net is that of its interface
//
// A plain value. Threads: any.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace waldo::server {

// An IPv4 or IPv6 address.
struct IpAddress {
  int family = 0;  // AF_INET, AF_INET6
  std::array<unsigned char, 16> bytes{};

  static Result<IpAddress> parse(const std::string& text);
  static Result<IpAddress> of(const sockaddr_storage& address);  // kInvalid: another family
  size_t size() const { return family == AF_INET ? 4 : 16; }
  std::string text() const;
  bool loopback() const;
  bool operator==(const IpAddress&) const = default;
};

struct OwnAddress {
  IpAddress address;
  std::string interface;
  int prefix_bits = 0;  // of the interface's net
};
// Of the interfaces that are up.
std::vector<OwnAddress> own_addresses();

class CollectiveNet {
 public:
  // kInvalid: neither an address nor a net, or this host has no address in it; the text says which it has.
  static Result<CollectiveNet> parse(const std::string& text, std::span<const OwnAddress> own);
  static Result<CollectiveNet> parse(const std::string& text) { return parse(text, own_addresses()); }
  // Only whether it could be one anywhere.
  static Status check(const std::string& text);

  const IpAddress& here() const { return here_; }  // to listen at
  const std::string& interface() const { return interface_; }
  bool loopback() const { return here_.loopback(); }
  bool holds(const IpAddress& address) const;
  std::string text() const;  // "10.1.0.0/16"

 private:
  IpAddress base_, here_;
  int prefix_bits_ = 0;
  std::string interface_;
};

}  // namespace waldo::server
