// Is a device known to have nothing to do? Remembered when a thread has waited for all of it.
#pragma once

#include <c10/core/Device.h>

#include "base/ids.h"

namespace waldo::torch_frontend {

// The last call of which a synchronize_device() of this process saw the end; 0: none known. Any thread.
CallNumber idle_since(c10::DeviceIndex device) noexcept;

}  // namespace waldo::torch_frontend
