// `waldo bridge`: what runs at the far end of ssh. Starts the daemon when none runs, says who it is (banner.h), and
// then carries bytes between its standard input and output and the daemon's socket, knowing nothing of them.
#pragma once

#include <string>

namespace waldo::server {

// Until either side ends; the exit code. Errors go to stderr, as one line the other end shows.
// `resumes`: the link is for a session that there is, so no worker needs to get ready; else one does, for the front end
// that is `likely` to ask.
int run_bridge(const std::string& package_dir, bool resumes = false, const std::string& likely = "torch");

}  // namespace waldo::server
