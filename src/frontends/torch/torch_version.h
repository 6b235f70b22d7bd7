// What differs between the versions of PyTorch that Waldo is built for, 2.11 to 2.13, and nothing else: sources that
// need a difference include this and name what it brings. `make torch-matrix` compiles with each.
#pragma once

#include <torch/version.h>

static_assert(
    TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 11 && TORCH_VERSION_MINOR <= 13,
    "Waldo is built for PyTorch 2.11 to 2.13; a newer one needs op_table.inc made again, and make torch-matrix");

// 2.12: a device's guard is asked whether a stream captures a graph; before, only torch.cuda's own functions are.
#if TORCH_VERSION_MINOR >= 12
#define WALDO_GUARD_KNOWS_CAPTURE override
#else
#define WALDO_GUARD_KNOWS_CAPTURE
#endif
