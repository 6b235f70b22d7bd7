#include "server/collectives/net.h"

#include <gtest/gtest.h>

namespace waldo::server {
namespace {

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

const std::vector<OwnAddress> kHost = {{ip("127.0.0.1"), "lo", 8},
                                       {ip("192.0.2.7"), "eth0", 24},
                                       {ip("10.1.2.3"), "eth1", 16},
                                       {ip("fd00::2"), "eth0", 64}};

// Goal: a net, or an address of ours, gives where to listen, by which interface, and whom to reach.
TEST(CollectiveNet, ListensInTheNetAndReachesIt) {
  const auto net = CollectiveNet::parse("10.1.0.0/16", kHost);
  ASSERT_TRUE(net.ok()) << net.status().to_string();
  EXPECT_EQ(net->here().text(), "10.1.2.3");
  EXPECT_EQ(net->interface(), "eth1");
  EXPECT_TRUE(net->holds(ip("10.1.255.1")));
  EXPECT_FALSE(net->holds(ip("10.2.0.1")));
  EXPECT_FALSE(net->holds(ip("fd00::2")));
  EXPECT_EQ(net->text(), "10.1.0.0/16");

  const auto address = CollectiveNet::parse("192.0.2.7", kHost);
  EXPECT_EQ(address->text(), "192.0.2.0/24");
  EXPECT_TRUE(address->holds(ip("192.0.2.200")));
  EXPECT_FALSE(address->holds(ip("192.0.3.1")));

  const auto six = CollectiveNet::parse("fd00::/60", kHost);
  EXPECT_EQ(six->here().text(), "fd00::2");
  EXPECT_TRUE(six->holds(ip("fd00:0:0:f::1")));
  EXPECT_FALSE(six->holds(ip("fd00:0:0:10::1")));
  EXPECT_TRUE(CollectiveNet::parse("0.0.0.0/0", kHost)->holds(ip("8.8.8.8")));
}

// Goal: the default reaches this machine only.
TEST(CollectiveNet, LoopbackStaysHere) {
  for (const char* text : {"127.0.0.1", "127.0.1.1", "::1"}) {
    const auto net = CollectiveNet::parse(text, kHost);
    ASSERT_TRUE(net.ok()) << text;
    EXPECT_TRUE(net->loopback());
    EXPECT_EQ(net->here().text(), text);
    EXPECT_FALSE(net->holds(ip("10.1.2.3")));
  }
  EXPECT_TRUE(CollectiveNet::parse("127.0.0.1", kHost)->holds(ip("127.0.0.1")));
}

// Goal: a net in which this host is not says which addresses it has; anything else is no net.
TEST(CollectiveNet, SaysWhatIsWrong) {
  const auto none = CollectiveNet::parse("172.16.0.0/12", kHost);
  EXPECT_NE(none.status().text().find("no address in it"), std::string::npos) << none.status().text();
  EXPECT_NE(none.status().text().find("10.1.2.3/16 (eth1)"), std::string::npos) << none.status().text();
  EXPECT_FALSE(CollectiveNet::parse("10.9.9.9", kHost).ok());
  for (const char* text :
       {"", "eth0", "10.1", "10.1.0.0/", "10.1.0.0/33", "10.1.0.0/-1", "10.1.0.0/8x", "fd00::/129"}) {
    EXPECT_FALSE(CollectiveNet::check(text).ok()) << text;
    EXPECT_FALSE(CollectiveNet::parse(text, kHost).ok()) << text;
  }
  EXPECT_TRUE(CollectiveNet::check("172.16.0.0/12").ok());
}

// Goal: the machine's own addresses are found.
TEST(CollectiveNet, KnowsThisHostsAddresses) {
  for (const OwnAddress& own : own_addresses()) {
    EXPECT_TRUE(CollectiveNet::parse(own.address.text()).ok()) << own.address.text();
    EXPECT_FALSE(own.interface.empty());
  }
}

}  // namespace
}  // namespace waldo::server
