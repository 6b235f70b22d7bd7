// Random numbers come from generators on the worker. A c10::Generator here holds a device, a number and what its seed
// and offset were last known to be; the state itself is read from the worker when a program asks for it.
//
// Number 0 is a device's default generator; others are made by torch.Generator(device='cuda').
#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

// What goes into a call: the worker's generator number for `generator`; 0 for none or the default one.
// Throws RuntimeError when it is of another device than `device`.
WALDO_TORCH_API uint32_t generator_number(const std::optional<at::Generator>& generator, c10::DeviceIndex device);

WALDO_TORCH_API const at::Generator& default_generator(c10::DeviceIndex device);  // -1: the current device's
WALDO_TORCH_API at::Generator new_generator(c10::DeviceIndex device);

}  // namespace waldo::torch_frontend
