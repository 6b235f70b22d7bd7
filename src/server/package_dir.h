// Where this installation's parts are: libwaldo.so, the backends' shared objects and bin/waldo.
#pragma once

#include <string>

namespace waldo::server {

// An absolute path without a trailing slash; "" when there is none. Looks at $WALDO_PACKAGE_DIR, then beside the
// running program (<package>/bin/waldo), then where a virtual environment has it
// (<prefix>/lib/python3*/site-packages/waldo).
std::string find_package_dir();

// The same from given places, for tests.
std::string find_package_dir_from(const std::string& from_environment, const std::string& executable);

}  // namespace waldo::server
