#include <cstdio>

#include "apps/waldo/commands.h"

namespace waldo::apps {

void complain(const std::string& text) { std::fprintf(stderr, "waldo: %s\n", text.c_str()); }

}  // namespace waldo::apps
