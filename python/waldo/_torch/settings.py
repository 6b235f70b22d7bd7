"""Names of torch._C that keep what they are told and change nothing else: no value of a program depends on them, and what
they would tune or place is the worker's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from waldo._torch import graphs, unavailable

_CUBLAS_WORKSPACE_BYTES = 8_519_680  # what PyTorch gives cuBLAS on most GPUs
_CUBLASLT_WORKSPACE_BYTES = 1_048_576


def names() -> dict[str, Any]:
    return {**_tunable(), **_workspaces(), **_pools(), **_raw_memory()}


def _kept(value: Any) -> tuple[Callable[[], Any], Callable[..., None]]:
    def set_value(new: Any, *_more: Any) -> None:
        nonlocal value
        value = new

    return lambda: value, set_value


def _tunable() -> dict[str, Any]:
    names: dict[str, Any] = {}
    first = {"max_tuning_duration": 30, "max_tuning_iterations": 100, "rotating_buffer_size": 0, "filename": ""}
    for part, value in first.items():
        get, put = _kept(value)
        names[f"_cuda_tunableop_get_{part}"], names[f"_cuda_tunableop_set_{part}"] = get, put
    names["_cuda_tunableop_set_numerical_check_tolerances"] = lambda *_: None
    names["_cuda_tunableop_get_results"] = names["_cuda_tunableop_get_validators"] = lambda: ()
    return names


def _workspaces() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for library, bytes_at_first in (("Cublas", _CUBLAS_WORKSPACE_BYTES), ("CublasLt", _CUBLASLT_WORKSPACE_BYTES)):
        get, put = _kept(bytes_at_first)
        names[f"_cuda_get{library}WorkspaceSize"], names[f"_cuda_set{library}WorkspaceSize"] = get, put
        names[f"_cuda_reset{library}WorkspaceSize"] = lambda put=put, first=bytes_at_first: put(first)
    return names


class _MemPool:
    """A pool without memory of its own: where a tensor lies is the worker's business."""

    __module__ = "torch._C"

    def __init__(
        self, allocator: Any = None, is_user_created: bool = True, use_on_oom: bool = False, no_split: bool = False
    ) -> None:
        if allocator is not None:
            unavailable.refuse("torch.cuda.MemPool(allocator=…)", unavailable.ALLOCATORS)
        self._id = graphs.new_pool()

    @property
    def id(self) -> tuple[int, int]:
        return self._id

    @property
    def allocator(self) -> None:
        return None

    def use_count(self) -> int:
        return 1


def _pools() -> dict[str, Any]:
    def nothing(*_args: Any) -> None:
        """Tensors are made as ever."""

    names = ("beginAllocateToPool", "beginAllocateCurrentThreadToPool", "beginAllocateCurrentStreamToPool")
    both = (*names, "endAllocateToPool", "releasePool")
    return {"_MemPool": _MemPool, **{f"_cuda_{name}": nothing for name in both}}


def _raw_memory() -> dict[str, Any]:
    """torch.cuda.caching_allocator_alloc: memory of the device without a tensor."""
    held: dict[int, Any] = {}

    def take(size: int, _stream: int) -> int:
        import torch

        storage = torch.UntypedStorage(size, device="cuda")
        held[storage.data_ptr()] = storage
        return storage.data_ptr()

    def give_back(pointer: int) -> None:
        if held.pop(pointer, None) is None:
            raise RuntimeError(f"invalid device pointer: {pointer:#x}")

    return {"_cuda_cudaCachingAllocator_raw_alloc": take, "_cuda_cudaCachingAllocator_raw_delete": give_back}


def patch() -> None:
    """After torch is imported: what NVML would tell of a card in this machine, and what tunes one."""
    import torch.cuda.tunable

    def device_memory_used(device: Any = None) -> int:
        free, total = torch.cuda.mem_get_info(device)
        return total - free

    device_memory_used.__doc__ = torch.cuda.device_memory_used.__doc__
    torch.cuda.device_memory_used = device_memory_used
    for name in ("utilization", "memory_usage", "temperature", "power_draw", "clock_rate"):
        setattr(torch.cuda, name, unavailable.function(f"torch.cuda.{name}", "NVML runs on the worker"))
    for name in ("tune_gemm_in_file", "mgpu_tune_gemm_in_file"):
        setattr(torch.cuda.tunable, name, unavailable.function(f"torch.cuda.tunable.{name}", unavailable.TUNING))
