"""torch.profiler with ProfilerActivity.CUDA, which a program with a GPU has by default: device times are the worker's, measured
with its events around each operator (src/frontends/torch/profiler.cc)."""

from __future__ import annotations

import json
from typing import Any

from waldo._torch import native


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

    exported = profiler.profile.export_chrome_trace

    def export_chrome_trace(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        result = exported(self, path, *arguments, **options)
        if self.kineto_results is not None and self.use_device == "cuda":
            _add_workers(path, self.kineto_results.events())
        return result

    profiler.profile.export_chrome_trace = export_chrome_trace


def _add_workers(path: str, events: Any) -> None:
    """Puts a row per device into an exported timeline, as a GPU in this machine has one: when each operator ran there."""
    module = native.get()
    rows: dict[int, list[tuple[str, int, int, int]]] = {}
    for event in events:
        if event.cuda_elapsed_us() > 0:
            device, begin, end = module.last_profiled_interval()
            rows.setdefault(device, []).append((event.name(), event.start_ns(), begin, end))
    if not rows:
        return
    with open(path, encoding="utf-8") as file:
        trace = json.load(file)
    base = trace.get("baseTimeNanoseconds", 0)
    for device, row in rows.items():
        # The two clocks are apart by what is not known. No operator ran before it was called: that places the row as
        # early as it can have been.
        apart = min(begin - called for _, called, begin, _ in row)
        named = {"ph": "M", "pid": device, "tid": 0, "ts": 0}
        trace["traceEvents"] += [
            named | {"name": "process_name", "args": {"name": f"worker of cuda:{device}"}},
            named | {"name": "process_labels", "args": {"labels": f"GPU {device}"}},
            named | {"name": "thread_name", "args": {"name": "stream 0"}},
        ]
        trace["traceEvents"] += [
            {
                "ph": "X",
                "cat": "kernel",
                "name": name,
                "pid": device,
                "tid": 0,
                "ts": (begin - apart - base) / 1000,
                "dur": (end - begin) / 1000,
                "args": {"device": device, "stream": 0},
            }
            for name, _, begin, end in row
        ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(trace, file)
