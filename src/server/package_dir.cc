#include "server/package_dir.h"

#include <cstdlib>
#include <filesystem>

#include "base/os/process.h"

namespace waldo::server {

namespace fs = std::filesystem;

std::string find_package_dir() {
  const char* from_environment = std::getenv("WALDO_PACKAGE_DIR");
  return find_package_dir_from(from_environment == nullptr ? "" : from_environment, os::executable_path());
}

std::string find_package_dir_from(const std::string& from_environment, const std::string& executable) {
  std::error_code error;
  if (!from_environment.empty()) return fs::absolute(from_environment, error).lexically_normal().string();
  if (executable.empty()) return "";
  const fs::path prefix = fs::path(executable).parent_path().parent_path();
  if (fs::exists(prefix / "libwaldo.so", error)) return prefix.string();
  for (const auto& entry : fs::directory_iterator(prefix / "lib", error)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    const fs::path package = entry.path() / "site-packages" / "waldo";
    if (fs::exists(package / "libwaldo.so", error)) return package.string();
  }
  return "";
}

}  // namespace waldo::server
