// `waldo broker`: what a program that was started without `waldo run` asks for links. It leaves the program's process
// group and log-in at once and is not its child, so Ctrl-C and waitpid(-1) do not meet it. It ends when nobody can ask
// it any more; the links it lent live on.
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "apps/waldo/commands.h"
#include "apps/waldo/exit_code.h"
#include "apps/waldo/link_broker.h"
#include "server/package_dir.h"

namespace waldo::apps {

namespace {

// Away from the caller: its child ends, the grandchild goes on in a session of its own.
void detach() {
  if (::fork() > 0) ::_exit(0);
  ::setsid();
  if (::fork() > 0) ::_exit(0);
}

}  // namespace

int run_broker(const BrokerOptions& options) {
  auto target = parse_target(options.target);
  detach();
  ::signal(SIGPIPE, SIG_IGN);
  LinkSettings settings;
  if (target.ok()) settings.target = target.value();
  settings.package_dir = server::find_package_dir();
  if (const char* gpus = std::getenv("WALDO_GPUS"); gpus != nullptr) settings.gpus = std::atoi(gpus);

  server::PollLoop loop;
  server::SignalPipe signals({SIGCHLD});
  LinkBroker broker(loop, settings);
  loop.watch(signals.fd(), POLLIN, [&](short) {
    for (server::SignalPipe::Caught caught; signals.take(&caught);) broker.reap();
  });
  broker.serve(os::UniqueFd(options.fd));
  loop.run([&] { return !broker.busy(); });
  return kExitOk;
}

}  // namespace waldo::apps
