// What libwaldo_torch.so shows to the Python module; everything else in it is hidden.
#pragma once
#define WALDO_TORCH_API __attribute__((visibility("default")))
