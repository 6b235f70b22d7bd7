"""A CUDA build of PyTorch on a machine whose devices are ours: the names of torch._C that would look for a GPU here. The
operators are C++'s business (src/frontends/torch/takeover.h)."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

from waldo._torch import unavailable

_PREFIXES = ("_cuda_", "_cudnn_", "_nccl_", "_gds_", "_CUDA", "_Cuda", "_cusparselt")
_HARMLESS = {"_cuda_lock_mutex", "_cuda_unlock_mutex"}  # of an allocator that nothing here allocates from
_WHY = "only a GPU in this machine has it"


def is_one() -> bool:
    from torch import version

    return version.cuda is not None


def hide(core: Any, ours: dict[str, Any]) -> None:
    """What torch._C has and we have no word for: says so, instead of looking for a driver."""
    for name in [name for name in dir(core) if name.startswith(_PREFIXES)]:
        value = getattr(core, name)
        if name in ours or name in _HARMLESS:
            continue
        if isinstance(value, type(sys)):  # a submodule: absent in a CPU build, and torch's files ask for that
            delattr(core, name)
            sys.modules.pop(f"{core.__name__}.{name}", None)
        elif isinstance(value, type):
            setattr(core, name, unavailable.kind(name, f"torch._C.{name}", _WHY))
        elif callable(value):
            setattr(core, name, unavailable.function(f"torch._C.{name}", _WHY))


def drop_checks_of_kernels() -> None:
    """At its first use torch.cuda asks whether the GPU can run the kernels in this PyTorch; the worker's PyTorch has others."""
    import torch

    checks = {getattr(torch.cuda, name, None) for name in ("_check_capability", "_check_cubins")}
    torch.cuda._queued_calls[:] = [call for call in torch.cuda._queued_calls if call[0] not in checks]


def after_torch(package_dir: str) -> None:
    import torch

    torch._C._jit_override_can_fuse_on_gpu(False)  # TorchScript's fuser compiles for a GPU
    _keep_the_profiler_here()
    foreign = foreign_kernels(package_dir)
    if foreign:
        text = f"{len(foreign)} operators of this PyTorch would run on a GPU of this machine, such as {foreign[0]}"
        if os.environ.get("WALDO_STRICT") == "1":
            raise ImportError(f"waldo: {text}")
        print(f"waldo: {text}", file=sys.stderr)


def _keep_the_profiler_here() -> None:
    """Kineto starts CUPTI, which looks for a driver, unless it was started without before: at the first profile."""
    import torch
    from torch.autograd import profiler

    prepare = profiler._prepare_profiler

    @functools.cache  # a second start crashes
    def start() -> None:
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        if (suppress := getattr(library, "suppressLibkinetoLogMessages", None)) is not None:
            suppress()  # it tells of each of its stages, unless PyTorch itself starts it
        library.libkineto_init(ctypes.c_bool(True), ctypes.c_bool(True))  # (cpuOnly, logOnError)

    def prepare_profiler(*args: Any, **kwargs: Any) -> Any:
        start()
        return prepare(*args, **kwargs)

    profiler._prepare_profiler = prepare_profiler


def foreign_kernels(package_dir: str) -> list[str]:
    """Every operator that `cuda` would reach and that is not ours: has to be empty."""
    library = ctypes.CDLL(os.path.join(package_dir, "libwaldo_torch.so"))
    library.waldo_torch_foreign_kernels.restype = ctypes.c_char_p
    return library.waldo_torch_foreign_kernels().decode().splitlines()
