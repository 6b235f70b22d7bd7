"""The names that torch/cuda/*.py and torch/backends expect in torch._C, and which a CPU build lacks.

`fill()` runs just before `torch.cuda` is imported, so that those files find what they look for and run unmodified. What
a name does: the real thing where a worker can do it (here and in the C++ module), a neutral answer where "nothing" is
true, else a clear error (unavailable.py).
"""

from __future__ import annotations

import itertools
import types
from typing import Any

from waldo._torch import comm, cuda_build, graphs, memory_history, native, settings, unavailable
from waldo._torch.properties import DeviceProperties, properties_of

# What programs compare with; the devices are reached through operators, whatever the worker's CUDA really is.
CUDA_VERSION = "12.8"
CUDNN_VERSION = (9, 7, 1)


in_cuda_build = False  # known once torch is there


def fill() -> None:
    global in_cuda_build
    import torch
    from torch import version

    core: Any = torch._C
    ours = _names(core)
    built = in_cuda_build = cuda_build.is_one()
    for name, value in ours.items():
        if built or not hasattr(core, name):
            setattr(core, name, value)
    for name, value in _attention().items():
        setattr(core, name, value)
    if built:
        cuda_build.hide(core, ours)
    core._acceleratorGraph = graphs.CUDAGraph
    core._accelerator_emptyHostCache = _nothing  # nothing pinned is kept when it is freed
    core._has_cuda = True
    core._has_cudnn = True
    core._has_magma = True
    version.cuda = version.cuda or CUDA_VERSION


def _names(core: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for group in (unavailable.names(), _devices(), _streams(), _memory(), _libraries(), settings.names(), comm.names()):
        names.update(group)
    return names


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """There is nothing to do, and that is the truth."""


def _devices() -> dict[str, Any]:
    module = native.get()

    def init() -> None:
        import torch

        module.check_available()
        torch.cuda.default_generators = tuple(module.default_generator(i) for i in range(module.device_count()))
        torch.cuda._get_device_properties = properties_of
        cuda_build.drop_checks_of_kernels()

    def visible_arch_flags() -> None:
        return None  # no kernels are compiled here: nothing to be incompatible with a device

    def compiled_version() -> int:
        from torch import version

        major, minor = str(version.cuda).split(".")[:2]
        return int(major) * 1000 + int(minor) * 10

    def maybe_exchange_device(device: int) -> int:  # another object: torch.compile has a handler for each of the two
        return module.exchange_device(device)

    return {
        "_cuda_init": init,
        "_cuda_getDeviceCount": module.device_count,
        "_cuda_isInBadFork": module.in_bad_fork,
        "_cuda_getDevice": module.current_device,
        "_cuda_setDevice": module.set_device,
        "_cuda_exchangeDevice": module.exchange_device,
        "_cuda_maybeExchangeDevice": maybe_exchange_device,
        "_CudaDeviceProperties": DeviceProperties,
        "_cuda_getArchFlags": visible_arch_flags,
        "_cuda_canDeviceAccessPeer": lambda device, peer: device != peer,
        "_cuda_getCompiledVersion": compiled_version,
        "_cuda_hasPrimaryContext": lambda device: device < module.device_count(),
        "_cuda_ipc_collect": _nothing,
        "_cuda_synchronize": module.synchronize,
    }


def _streams() -> dict[str, Any]:
    module = native.get()
    debug_mode = 0

    def set_debug_mode(mode: int) -> None:
        nonlocal debug_mode
        if mode:
            raise NotImplementedError(
                "torch.cuda.set_sync_debug_mode is not available on a Waldo device: waldo.stats()['waits_at'] names "
                "every line that waited"
            )
        debug_mode = mode

    def external_stream(pointer: int, device: int) -> tuple[int, int, int]:
        _, index, kind = module.default_stream(device)
        return (pointer, index, kind)

    return {
        "_CudaStreamBase": module.StreamBase,
        "_CudaEventBase": module.EventBase,
        "_cuda_getCurrentStream": module.current_stream,
        "_cuda_getDefaultStream": module.default_stream,
        "_cuda_getCurrentRawStream": lambda device: module.current_stream(device)[0],
        "_cuda_getStreamFromExternal": external_stream,
        "_cuda_setStream": lambda stream_id, device_index, device_type: module.set_stream(
            stream_id, device_index, device_type
        ),
        "_cuda_sleep": _nothing,  # delays change no value
        "_cuda_set_sync_debug_mode": set_debug_mode,
        "_cuda_get_sync_debug_mode": lambda: debug_mode,
        "_cuda_isCurrentStreamCapturing": graphs.is_capturing,
        "_graph_pool_handle": graphs.new_pool,
        "_CUDAGraph": graphs.CUDAGraph,
    }


_POOLS = ("all", "small_pool", "large_pool")
_ZERO = (0, 0, 0, 0)


def _figures(figures: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("current", "peak", "allocated", "freed"), figures, strict=True))


def _by_pool(three: tuple[tuple[int, int, int, int], ...]) -> dict[str, dict[str, int]]:
    return {pool: _figures(figures) for pool, figures in zip(_POOLS, three, strict=True)}


def _memory_stats(device: int) -> dict[str, Any]:
    stats = native.get().memory_stats(device)
    zeros = (_ZERO, _ZERO, _ZERO)
    reserved, segments = stats["reserved"], stats["segments"]
    return {
        "allocation": _by_pool(stats["count"]),
        "active": _by_pool(stats["count"]),
        "segment": _by_pool((segments, _ZERO, segments)),
        "inactive_split": _by_pool(zeros),
        "allocated_bytes": _by_pool(stats["bytes"]),
        "active_bytes": _by_pool(stats["bytes"]),
        "requested_bytes": _by_pool(stats["requested"]),
        "reserved_bytes": _by_pool((reserved, _ZERO, reserved)),
        "inactive_split_bytes": _by_pool(zeros),
        "reserved_bytes_by_private_pools": {},
        "oversize_allocations": _figures(_ZERO),
        "oversize_segments": _figures(_ZERO),
        "num_alloc_retries": 0,
        "num_ooms": stats["out_of_memory"],
        "num_sync_all_streams": 0,
        "num_device_alloc": segments[2],
        "num_device_free": segments[3],
        "num_oom_rejections": 0,
        "max_split_size": -1,
    }


def _host_memory_stats() -> dict[str, Any]:
    stats = native.get().pinned_stats()
    count = (stats["count"], stats["count"], stats["count_total"], stats["count_total"] - stats["count"])
    size = (stats["bytes"], stats["bytes_peak"], stats["bytes_total"], stats["bytes_total"] - stats["bytes"])
    return {
        "allocation": _figures(count),
        "segment": _figures(count),
        "active": _figures(count),
        "allocated_bytes": _figures(size),
        "reserved_bytes": _figures(size),
        "active_bytes": _figures(size),
        "host_alloc_time": {"total": 0, "max": 0, "min": 0, "count": stats["count_total"], "avg": 0},
        "host_free_time": {"total": 0, "max": 0, "min": 0, "count": count[3], "avg": 0},
        "num_host_alloc": stats["count_total"],
        "num_host_free": count[3],
    }


def _memory() -> dict[str, Any]:
    module = native.get()
    fractions: dict[int, float] = {}
    caching = True

    def set_fraction(fraction: float, device: int) -> None:
        module.set_memory_limit(device, int(properties_of(device).total_memory * fraction))
        fractions[device] = fraction

    def set_caching(value: bool) -> None:
        nonlocal caching
        caching = value  # the worker's allocator caches in any case; no value depends on it

    return {
        "_cuda_emptyCache": module.empty_cache,
        "_host_emptyCache": _nothing,
        "_cuda_memoryStats": _memory_stats,
        **memory_history.names(),
        "_cuda_resetAccumulatedMemoryStats": module.reset_accumulated_memory,
        "_cuda_resetPeakMemoryStats": module.reset_peak_memory,
        "_cuda_hostMemoryStats": _host_memory_stats,
        "_cuda_resetAccumulatedHostMemoryStats": _nothing,
        "_cuda_resetPeakHostMemoryStats": _nothing,
        "_cuda_setMemoryFraction": set_fraction,
        "_cuda_getMemoryFraction": lambda device: fractions.get(device, 1.0),
        "_cuda_getAllocatorBackend": lambda: "native",
        "_cuda_cudaCachingAllocator_enable": set_caching,
        "_cuda_cudaCachingAllocator_is_enabled": lambda: caching,
        "_cuda_clearCublasWorkspaces": _nothing,
    }


def _attention() -> dict[str, Any]:
    """What torch.backends.cuda asks of the forms of attention: a CPU build has these names too, and always says no."""
    module = native.get()

    def can_use_flash(params: Any, debug: bool = False) -> bool:
        return module.can_use_flash_attention(params, debug)

    def can_use_efficient(params: Any, debug: bool = False) -> bool:
        return module.can_use_efficient_attention(params, debug)

    def can_use_cudnn(_params: Any, _debug: bool = False) -> bool:
        return False  # src/frontends/torch/attention.h

    return {
        "_can_use_flash_attention": can_use_flash,
        "_can_use_mem_efficient_attention": can_use_efficient,
        "_can_use_cudnn_attention": can_use_cudnn,
        "_is_flash_attention_available": lambda: True,
    }


def _libraries() -> dict[str, Any]:
    benchmark_limit = 10

    def set_benchmark_limit(limit: int) -> None:
        nonlocal benchmark_limit
        benchmark_limit = limit

    return {
        "_cudart": _cudart(),
        "_nvtx": _nvtx(),
        "_cudnn": _cudnn(),
        "_cuda_get_cudnn_benchmark_limit": lambda: benchmark_limit,
        "_cuda_set_cudnn_benchmark_limit": set_benchmark_limit,
        "_cuda_get_conv_benchmark_empty_cache": lambda: False,
        "_cudnn_set_conv_benchmark_empty_cache": _nothing,
        "_cuda_tunableop_is_enabled": lambda: False,
        "_cuda_tunableop_tuning_is_enabled": lambda: False,
        "_cuda_record_untuned_is_enabled": lambda: False,
    }


def _cudart() -> types.ModuleType:
    """The few functions of the CUDA runtime that programs reach through torch.cuda.cudart()."""
    import enum

    cudart = types.ModuleType("torch._C._cudart")
    cuda_error = enum.IntEnum(  # type: ignore[misc]
        "cudaError",
        {
            "success": 0,
            "errorInvalidValue": 1,
            "errorMemoryAllocation": 2,
            "errorNotReady": 600,
            "errorNotSupported": 801,
            "errorUnknown": 999,
        },
    )

    def error_string(error: int) -> str:
        try:
            return {0: "no error", 2: "out of memory", 801: "operation not supported"}.get(
                int(error), cuda_error(error).name
            )
        except ValueError:
            return "unrecognized error code"

    def succeed(*_args: Any) -> Any:
        return cuda_error.success

    cudart.cudaError = cuda_error  # type: ignore[attr-defined]
    cudart.cudaGetErrorString = error_string  # type: ignore[attr-defined]
    cudart.cudaMemGetInfo = lambda device: native.get().memory_info(device)  # type: ignore[attr-defined]
    cudart.cudaProfilerStart = succeed  # type: ignore[attr-defined]
    cudart.cudaProfilerStop = succeed  # type: ignore[attr-defined]
    # Host memory needs no registration: transfers copy from wherever it is.
    cudart.cudaHostRegister = succeed  # type: ignore[attr-defined]
    cudart.cudaHostUnregister = succeed  # type: ignore[attr-defined]
    for name in ("cudaStreamCreate", "cudaStreamDestroy"):
        setattr(cudart, name, unavailable.function(f"torch.cuda.cudart().{name}", unavailable.NATIVE_HANDLES))
    return cudart


def _nvtx() -> types.ModuleType:
    """Ranges are marks for a profiler that is not on this machine; they are accepted and dropped."""
    nvtx = types.ModuleType("torch._C._nvtx")
    depth = itertools.count()
    nvtx.rangePushA = lambda message: next(depth)  # type: ignore[attr-defined]
    nvtx.rangePop = lambda: 0  # type: ignore[attr-defined]
    nvtx.rangeStartA = lambda message: next(depth)  # type: ignore[attr-defined]
    nvtx.rangeEnd = _nothing  # type: ignore[attr-defined]
    nvtx.markA = _nothing  # type: ignore[attr-defined]
    nvtx.deviceRangeStart = lambda message, stream: next(depth)  # type: ignore[attr-defined]
    nvtx.deviceRangeEnd = _nothing  # type: ignore[attr-defined]
    return nvtx


def _cudnn() -> types.ModuleType:
    """Without it torch.backends.cudnn warns at every RNN that PyTorch was built without cuDNN."""
    major, minor, patch = CUDNN_VERSION
    cudnn = types.ModuleType("torch._C._cudnn")
    cudnn.is_cuda = True  # type: ignore[attr-defined]
    cudnn.getVersionInt = lambda: major * 10000 + minor * 100 + patch  # type: ignore[attr-defined]
    cudnn.getRuntimeVersion = lambda: CUDNN_VERSION  # type: ignore[attr-defined]
    cudnn.getCompileVersion = lambda: CUDNN_VERSION  # type: ignore[attr-defined]
    return cudnn
