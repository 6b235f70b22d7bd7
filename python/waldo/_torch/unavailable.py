"""Names of torch._C that no Waldo device has. Each exists, so that torch's files import, and says clearly what it is
that is missing and why when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

NATIVE_HANDLES = "pointers and handles of the CUDA libraries exist on the worker only"
GRAPHS = "there are no CUDA graphs in this process"
TUNING = "TunableOp picks kernels of a local GPU"
_IPC = "device memory cannot be shared between processes"
_COMPILED = "there is no CUDA compiler or driver in this process"
ALLOCATORS = "device memory is allocated on the worker"

_FUNCTIONS: dict[str, tuple[str, str]] = {
    # name in torch._C: (what the user called, why not)
    "_cuda_getCurrentBlasHandle": ("torch.cuda.current_blas_handle", NATIVE_HANDLES),
    "_cuda_getCurrentSolverHandle": ("torch.cuda.current_solver_handle", NATIVE_HANDLES),
    "get_cuda_stream": ("torch._C.get_cuda_stream", NATIVE_HANDLES),
    "_cuda_getHipblasltVersion": ("torch._C._cuda_getHipblasltVersion", "it is ROCm's"),
    "_cuda_jiterator_compile_and_launch_kernel": ("torch.cuda.jiterator", _COMPILED),
    "_cuda_getAllocator": ("torch.cuda.memory._get_current_allocator", ALLOCATORS),
    "_cuda_customAllocator": ("torch.cuda.memory.CUDAPluggableAllocator", ALLOCATORS),
    "_cuda_changeCurrentAllocator": ("torch.cuda.memory.change_current_allocator", ALLOCATORS),
    "_cuda_cudaHostAllocator": ("torch.cuda.memory._host_allocator", ALLOCATORS),
    "_cuda_checkPoolLiveAllocations": ("CUDA graph trees", GRAPHS),
    "_cuda_getCheckpointState": ("CUDA graph trees", GRAPHS),
    "_cuda_setCheckpointPoolState": ("CUDA graph trees", GRAPHS),
    "_free_And_Remove_DeleterFn": ("CUDA graph trees", GRAPHS),
    "_has_Standard_Deleter": ("CUDA graph trees", GRAPHS),
    "_set_storage_access_error_msg": ("CUDA graph trees", GRAPHS),
    "_set_storage_data_ptr_access_error_msg": ("CUDA graph trees", GRAPHS),
    "_tensors_data_ptrs_at_indices_equal": ("CUDA graph trees", GRAPHS),
    "_construct_CUDA_Tensor_From_Storage_And_Metadata": ("CUDA graph trees", GRAPHS),
    "_nccl_unique_id": ("torch.cuda.nccl.unique_id", "processes meet through torch.distributed"),
    "_nccl_init_rank": ("torch.cuda.nccl.init_rank", "processes meet through torch.distributed"),
}

_GDS = ("register_buffer", "deregister_buffer", "register_handle", "deregister_handle", "load_storage", "save_storage")
_TUNABLE = ["enable", "tuning_enable", "read_file"]

_TYPES: dict[str, tuple[str, str]] = {
    "_CUDAGreenContext": ("torch.cuda.green_contexts", NATIVE_HANDLES),
    "_cuda_CUDAAllocator": ("torch.cuda.memory allocators", ALLOCATORS),
    "_cuda_CUDAAllocator_AllocatorState": ("CUDA graph trees", GRAPHS),
    "AllocatorState": ("CUDA graph trees", GRAPHS),
    "_StaticCudaLauncher": ("compiled CUDA kernels", _COMPILED),
    "_FastCudaLauncher": ("compiled CUDA kernels", _COMPILED),
}


def _text(what: str, why: str) -> str:
    return f"{what} is not available on a Waldo device: {why}"


def refuse(what: str, why: str) -> NoReturn:
    raise NotImplementedError(_text(what, why))


def function(what: str, why: str) -> Callable[..., NoReturn]:
    def not_available(*_args: Any, **_kwargs: Any) -> NoReturn:
        refuse(what, why)

    return not_available


def kind(name: str, what: str, why: str) -> type:
    """A class that can be derived from, but not made."""

    def new(cls: type, *_args: Any, **_kwargs: Any) -> NoReturn:
        refuse(what, why)

    return type(name, (), {"__new__": new, "__module__": "torch._C"})


def names() -> dict[str, Any]:
    found: dict[str, Any] = {name: function(what, why) for name, (what, why) in _FUNCTIONS.items()}
    found.update({name: kind(name, what, why) for name, (what, why) in _TYPES.items()})
    found["_CUDAGreenContext"].create = staticmethod(function("torch.cuda.GreenContext.create", NATIVE_HANDLES))
    for part in _GDS:
        found[f"_gds_{part}"] = function(f"torch.cuda.gds ({part})", "GPUDirect Storage is for a local GPU")
    for part in _TUNABLE:
        found[f"_cuda_tunableop_{part}"] = function(f"torch.cuda.tunable.{part}", TUNING)
    found["_cuda_record_untuned_enable"] = function("torch.cuda.tunable.record_untuned_enable", TUNING)
    return found


def ipc(what: str) -> Callable[..., NoReturn]:
    return function(what, _IPC)
