"""torch.distributed: the names that a CPU build's torch._C._distributed_c10d lacks, so that the backend "nccl" is there.

The process group itself is C++ (src/frontends/torch/process_group.h)."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
import zlib
from datetime import timedelta
from typing import Any

_DRAIN = timedelta(seconds=5)  # how long the end of a program waits for collectives nobody waited for

_groups: weakref.WeakSet[Any] = weakref.WeakSet()
_nccl_version = (2, 27, 0)


class NCCLConfig:
    """Settings of NCCL, kept and not used: the worker's engine has its own."""

    def __init__(self) -> None:
        self.blocking = 1
        self.cga_cluster_size = 4
        self.min_ctas = 1
        self.max_ctas = 32
        self.cta_policy = 0
        self.split_share = 0
        self.net_name: str | None = None

    def unsafe_get_ptr(self) -> int:
        raise NotImplementedError("NCCLConfig.unsafe_get_ptr is not available on a Waldo device: there is no NCCL here")


def fill() -> None:
    """Called when the first submodule of torch.distributed is looked for: its C++ half is initialized then."""
    import torch

    from waldo import _start

    c10d: Any = torch._C._distributed_c10d
    native = _start._native  # a CUDA build has a ProcessGroupNCCL, which wants a GPU here: ours takes its place
    native.define_process_group()
    group = native.ProcessGroupNCCL
    _complete(group)
    c10d.ProcessGroupNCCL = group
    c10d._DEFAULT_PG_NCCL_TIMEOUT = timedelta(minutes=10)
    c10d._hash_tensors = _hash_tensors
    atexit.register(_drain)


def _complete(group: Any) -> None:
    """What needs no C++."""
    group.NCCLConfig = NCCLConfig
    group.NCCL_CTA_POLICY_DEFAULT = 0
    group.NCCL_CTA_POLICY_EFFICIENCY = 1
    group.NCCL_CTA_POLICY_ZERO = 2
    group.Options.config = property(_config_of)
    group._group_start = lambda self: None
    group._group_end = lambda self: None
    group._add_ephemeral_timeout = lambda self, timeout: None
    group.comm_split_count = lambda self: 0
    group.perform_nocolor_split = lambda self, device: None
    group.register_mem_pool = lambda self, pool, symm=False: None
    group.deregister_mem_pool = lambda self, pool: None
    group._start_time_estimate = _unavailable("_start_time_estimate")
    group._end_time_estimate = _unavailable("_end_time_estimate")
    group.get_build_nccl_version = staticmethod(lambda: _nccl_version)
    group.get_runtime_nccl_version = staticmethod(lambda: _nccl_version)
    make = group.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        _groups.add(self)

    group.__init__ = __init__


def _config_of(options: Any) -> NCCLConfig:
    if not hasattr(options, "_waldo_config"):
        options._waldo_config = NCCLConfig()
    return options._waldo_config


def _unavailable(name: str) -> Any:
    def raises(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"ProcessGroupNCCL.{name} is not available on a Waldo device: there is no NCCL here")

    return raises


def _hash_tensors(tensors: list[Any]) -> int:
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes(), value)
    return value


_pid = os.getpid()


def _drain() -> None:
    """A program may end with collectives recorded that the other ranks still wait for."""
    if os.getpid() != _pid:
        return
    for group in list(_groups):
        with contextlib.suppress(Exception):
            group._leave(_DRAIN)
