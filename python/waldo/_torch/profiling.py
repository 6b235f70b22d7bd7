"""torch.profiler with ProfilerActivity.CUDA, which a program with a GPU has by default: device times are the worker's, measured
with its events around each operator (src/frontends/torch/profiler.cc)."""

from __future__ import annotations

from typing import Any


def patch() -> None:
    """After torch is imported."""
    import torch
    from torch.autograd import profiler

    cuda = torch.profiler.ProfilerActivity.CUDA
    in_this_process = profiler._supported_activities

    def supported_activities() -> set[Any]:
        return {*in_this_process(), cuda} if torch.cuda.is_available() else in_this_process()

    # Kineto itself must not look: in a CUDA build it would ask for the driver of a GPU in this machine.
    def without_cuda() -> set[Any]:
        return {activity for activity in in_this_process() if activity != cuda}

    torch.autograd._supported_activities = supported_activities
    profiler._supported_activities = without_cuda
