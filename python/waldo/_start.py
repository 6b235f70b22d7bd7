"""The start-up hook. `waldo.pth` imports this at interpreter start when WALDO_ON, WALDO_GPUS or WALDO_BROKER is set.

It puts a finder before all others that waits for `import torch`, and does nothing else until then. Whatever goes wrong
here is one line on stderr; the interpreter starts in any case.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waldo import Stats

_installed = False
_ends: list[Any] = []  # other front ends' last calls
_lost: list[Any] = []  # … and what says whether an uncaught error is a lost device
_native: Any = None  # the module _waldo_torch, once torch is imported
_pid = 0


def install() -> None:
    """Put the finder in place. Safe to repeat."""
    global _installed, _pid
    if _installed:
        return
    _installed = True
    _pid = os.getpid()
    from waldo import _hook

    sys.meta_path.insert(0, _hook.Finder())
    atexit.register(_at_exit)  # registered first, so it runs after every handler of the program
    if os.environ.get("WALDO_STATUS_FD"):
        _report_lost_devices()


def active() -> bool:
    """Does this process's torch have our devices?"""
    return _native is not None


def attach(native: Any) -> None:
    """Called by the hook once _waldo_torch is there."""
    global _native
    _native = native


def at_end(shut_down: Any) -> None:
    """Called by the hook: what is to be done when the program ends."""
    _ends.append(shut_down)


def lost_by(asks: Any) -> None:
    """Called by the hook: `asks(kind)` says whether an uncaught error of that kind means that the device is lost."""
    _lost.append(asks)


def counters() -> Stats:
    if _native is not None:
        return _native.counters()
    zeros = dict.fromkeys(
        ("calls", "messages", "waits", "bytes_up", "bytes_down", "plans", "asks", "conforms", "frees"), 0
    )
    return {**zeros, "waits_at": []}  # type: ignore[typeddict-item]


def _at_exit() -> None:
    if os.getpid() != _pid:  # a forked child owns nothing of ours
        return
    for shut_down in _ends:
        shut_down()
    if _native is None:
        return
    _native.shutdown()  # says goodbye, then prints or writes what WALDO_STATS asks for


def _report_lost_devices() -> None:
    """Tell `waldo run` through WALDO_STATUS_FD when our own uncaught error ends the program."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], value: BaseException, traceback: Any) -> None:
        from waldo import DeviceLostError

        lost = issubclass(kind, DeviceLostError) or any(asks(kind) for asks in _lost)
        if lost and os.getpid() == _pid:
            with contextlib.suppress(OSError, ValueError, KeyError):
                os.write(int(os.environ["WALDO_STATUS_FD"]), b"lost\n")
        previous(kind, value, traceback)

    sys.excepthook = excepthook


def _start() -> None:
    if not (os.environ.get("WALDO_ON") or os.environ.get("WALDO_GPUS") or os.environ.get("WALDO_BROKER")):
        return
    try:
        install()
    except Exception as error:  # the interpreter must start
        print(f"waldo: the start-up hook failed: {error}", file=sys.stderr)


_start()
