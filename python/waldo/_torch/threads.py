"""torch.set_num_threads of a program whose device is this machine's CPU means that device too: on two cores a program that
takes one thread must not meet a worker that takes two. Of a worker elsewhere it says nothing, as of a GPU."""

from __future__ import annotations

import functools
import os


def patch() -> None:
    import torch

    from waldo._torch import native

    if os.environ.get("WALDO_ON", "local") != "local":
        return
    original = torch.set_num_threads

    @functools.wraps(original)
    def set_num_threads(threads: int) -> None:
        original(threads)
        native.get().set_worker_threads(threads)

    torch.set_num_threads = set_num_threads
