#include "client/visible_devices.h"

#include <gtest/gtest.h>

namespace waldo::client {
namespace {

using Devices = std::vector<int>;

TEST(VisibleDevices, AllWhenTheVariableIsUnset) { EXPECT_EQ(visible_devices(nullptr, 3), (Devices{0, 1, 2})); }

TEST(VisibleDevices, SubsetAndOrderAreTheVariables) {
  EXPECT_EQ(visible_devices("2,0", 3), (Devices{2, 0}));
  EXPECT_EQ(visible_devices(" 1 ", 3), Devices{1});
}

TEST(VisibleDevices, EmptyHidesAll) {
  EXPECT_EQ(visible_devices("", 3), Devices{});
  EXPECT_EQ(visible_devices("-1", 3), Devices{});
  EXPECT_EQ(visible_devices("NoDevFiles", 3), Devices{});
}

TEST(VisibleDevices, TheFirstThatIsNoDeviceEndsTheList) {
  EXPECT_EQ(visible_devices("1,7,0", 3), Devices{1});
  EXPECT_EQ(visible_devices("0,,1", 3), Devices{0});
  EXPECT_EQ(visible_devices("0,1x", 3), Devices{0});
}

TEST(VisibleDevices, ADeviceNamedTwiceLeavesNone) { EXPECT_EQ(visible_devices("0,1,0", 3), Devices{}); }

}  // namespace
}  // namespace waldo::client
