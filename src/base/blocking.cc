#include "base/blocking.h"

namespace waldo {

Director*& Director::current() {
  thread_local Director* director = nullptr;
  return director;
}

}  // namespace waldo
