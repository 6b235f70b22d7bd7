// Ends a session whose client died without a word: as that client, on a link of ours, says HELLO and GOODBYE.
#pragma once

#include "wire/messages.h"

namespace waldo::apps {

// Blocks for two round trips, 3 s at most. Nothing is said when it does not work: then the session ends with its grace.
void end_session(int link, SessionId session, const wire::Secret& secret);

}  // namespace waldo::apps
