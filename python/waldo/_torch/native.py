"""Loads the compiled module and lends it to the client. The one place that imports `_waldo_torch`."""

from __future__ import annotations

import importlib
import os
from typing import Any

_module: Any = None


def load(package_dir: str) -> Any:
    """Needs torch._C in sys.modules: the module uses its types."""
    global _module
    if _module is not None:
        return _module
    import torch

    module = importlib.import_module("waldo._waldo_torch")
    module.configure("", 0, _version(), package_dir)  # the client reads WALDO_ON and WALDO_GPUS itself
    skipped = [os.path.dirname(os.path.abspath(torch.__file__)) + os.sep, package_dir + os.sep]
    module.lend_interpreter(_lost_class(), skipped)
    _module = module
    return module


def get() -> Any:
    return _module


def _version() -> str:
    from torch.version import __version__

    return str(__version__)


def _lost_class() -> type[Exception]:
    """waldo.DeviceLostError, and what a CUDA user catches, in one."""
    import torch

    import waldo

    return type(
        "DeviceLostError",
        (waldo.DeviceLostError, torch._C.AcceleratorError),
        {"__module__": "waldo", "__doc__": waldo.DeviceLostError.__doc__, "error_code": 999},
    )
