"""A program that says ``cuda`` on a machine without a GPU runs as written; its GPU is somewhere else.

Most programs need nothing of this module: ``waldo run train.py`` is enough. In a notebook or a script::

    import waldo
    waldo.connect("lab")  # before `import torch`
    import torch
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__version__ = "0.1.0"
__all__: Sequence[str] = ["DeviceLostError", "Stats", "WaitPlace", "__version__", "connect", "stats"]


class DeviceLostError(RuntimeError):
    """The worker is gone, and its tensors with it. What is raised is a ``torch.AcceleratorError`` too."""


class WaitPlace(TypedDict):
    """A line of the program that waited for the device."""

    file: str
    line: int
    count: int
    seconds: float


class Stats(TypedDict):
    """What this process has sent and waited for since it began; exact."""

    calls: int
    messages: int
    waits: int
    bytes_up: int
    bytes_down: int
    plans: int
    asks: int
    conforms: int
    frees: int
    waits_at: list[WaitPlace]


def connect(target: str = "local", gpus: int = 0) -> None:
    """Make ``cuda:0``, ``cuda:1``, … the devices of `target`, for this process and those it starts.

    `target` is ``"local"`` (this machine's CPU poses as a GPU), an ssh host name, ``unix:PATH`` or ``tcp:HOST:PORT``;
    `gpus` is how many devices to take (0: all there are). Nothing is connected yet: that happens at the first use.

    Must come before the first ``import torch``; raises RuntimeError after it.
    """
    from waldo import _hook, _start

    if not isinstance(target, str) or not target:
        raise ValueError("waldo.connect: the target is a name such as 'local' or 'lab', not " + repr(target))
    if not isinstance(gpus, int) or not 0 <= gpus <= _hook.GPUS_MAX:
        raise ValueError(f"waldo.connect: gpus is a number from 0 to {_hook.GPUS_MAX}, not {gpus!r}")
    if "torch" in sys.modules:
        same = os.environ.get("WALDO_ON") == target and int(os.environ.get("WALDO_GPUS") or 0) == gpus
        if _start.active() and same:
            return
        raise RuntimeError(
            "waldo.connect() must come before the first `import torch`, which has already happened in this process. "
            "Move it to the top of the program, restart the notebook's kernel, or start with "
            f"`waldo run --on {target} SCRIPT`."
        )
    os.environ["WALDO_ON"] = target
    if gpus:
        os.environ["WALDO_GPUS"] = str(gpus)
    else:
        os.environ.pop("WALDO_GPUS", None)
    _start.install()


def stats() -> Stats:
    """Counters of this process: calls, messages, waits and where they happened, bytes up and down."""
    from waldo import _start

    return _start.counters()


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext waldo`: the magics `%waldo up HOST`, `%waldo stats` and `%%waldo HOST`."""
    from waldo import _magics

    _magics.register(shell)
