// Commands to the backend, outside operators (wire/plan_body.h), for this front end: recorded or asked, errors thrown.
#pragma once

#include <c10/core/Device.h>

#include "wire/plan_body.h"

namespace waldo::torch_frontend {

void send_command(c10::DeviceIndex device, const wire::Command& command);          // recorded; never waits
wire::Command ask_command(c10::DeviceIndex device, const wire::Command& command);  // one wait; the answer

}  // namespace waldo::torch_frontend
