"""torch.cuda.memory's snapshots: what lives now, and the history of what was taken and given back
(src/frontends/torch/allocation_history.h), in the form of CUDA's caching allocator, which PyTorch's viewers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from waldo._torch import native

_NEVER, _STATE, _ALLOC, _ALL = range(4)
_CONTEXTS = {None: _NEVER, "state": _STATE, "alloc": _ALLOC, "all": _ALL}


def names() -> dict[str, Callable[..., Any]]:
    module = native.get()
    return {
        "_cuda_memorySnapshot": snapshot,
        "_cuda_record_memory_history": record,
        "_cuda_record_memory_history_legacy": record_legacy,
        "_cuda_isHistoryEnabled": module.history_is_kept,
        "_cuda_allocationTraceback": _traceback_of,
        "_cuda_setMemoryMetadata": module.set_history_metadata,
        "_cuda_getMemoryMetadata": module.history_metadata,
        "_cuda_attach_out_of_memory_observer": module.observe_out_of_memory,
    }


def snapshot(_pool: Any = None) -> dict[str, Any]:
    """Each storage is a segment of its own: what the worker's allocator keeps around it is not told."""
    module = native.get()
    devices = range(module.device_count())
    blocks = [module.memory_blocks(device) for device in devices]  # first: it also tells history what was dropped
    if module.history_is_kept():
        for device in devices:
            module.note_snapshot(device, sum(taken for _, _, taken, _ in blocks[device]))
    living, traces = module.history(len(devices))

    def segment(device: int, address: int, size: int, taken: int, large: bool) -> dict[str, Any]:
        frames, stream = living.get(address, ([], 0))
        block = {
            "address": address,
            "size": taken,
            "requested_size": size,
            "state": "active_allocated",
            "frames": frames,
        }
        return {
            "device": device,
            "address": address,
            "total_size": taken,
            "allocated_size": taken,
            "active_size": taken,
            "requested_size": size,
            "stream": stream,
            "segment_type": "large" if large else "small",
            "segment_pool_id": (0, 0),
            "is_expandable": False,
            "frames": frames,
            "blocks": [block],
        }

    return {
        "segments": [segment(device, *block) for device in devices for block in blocks[device]],
        "device_traces": [[_entry(*entry) for entry in trace] for trace in traces],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": "", "expandable_segments": False},
        "external_annotations": [],
    }


def _entry(
    action: str, address: int, size: int, stream: int, time_us: int, frames: list[dict[str, Any]], metadata: str
) -> dict[str, Any]:
    return {
        "action": action,
        "device_free" if action == "oom" else "addr": address,
        "size": size,
        "stream": stream,
        "time_us": time_us,
        "compile_context": "N/A",
        "user_metadata": metadata,
        "pool_id": (0, 0),
        "frames": frames,
    }


def _one_of(what: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        said = ", ".join(repr(choice) for choice in choices if choice is not None)
        ending = ", or None" if None in choices else ""
        raise RuntimeError(f"expected {what} to be one of {said}{ending}, not {value!r}")


def record(
    enabled: str | None,
    context: str | None = "all",
    stacks: str = "all",
    max_entries: int = (1 << 63) - 1,
    clear_history: bool = False,
    _compile_context: bool = False,
    _global_record_annotations: bool = False,
    skip_actions: Sequence[str] = (),
) -> None:
    module = native.get()
    _one_of("enabled", enabled, ("state", "all", None))
    _one_of("context", context, ("state", "alloc", "all", None))
    _one_of("stacks", stacks, ("python", "all"))
    if enabled is None:
        module.stop_history()
        return
    entries = 1 if enabled == "state" else max_entries
    module.start_history(_CONTEXTS[context], stacks == "all", entries, clear_history, list(skip_actions))


def record_legacy(
    enabled: bool,
    record_context: bool = True,
    trace_alloc_max_entries: int = 1,
    trace_alloc_record_context: bool = False,
    record_context_cpp: bool = False,
    clear_history: bool = False,
    _compile_context: bool = False,
    _global_record_annotations: bool = False,
    skip_actions: Sequence[str] = (),
) -> None:
    module = native.get()
    if not enabled:
        module.stop_history()
        return
    context = _ALLOC if trace_alloc_record_context else _STATE if record_context else _NEVER
    module.start_history(context, record_context_cpp, trace_alloc_max_entries, clear_history, list(skip_actions))


def _traceback_of(address: int) -> list[dict[str, Any]] | None:
    living, _ = native.get().history(0)
    frames, _ = living.get(address, (None, 0))
    return frames or None
