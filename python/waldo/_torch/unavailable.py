"""Names of torch._C that no Waldo device has. Each exists, so that torch's files import, and says clearly what it is
that is missing and why when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

NATIVE_HANDLES = "pointers and handles of the CUDA libraries exist on the worker only"
_GRAPHS = "work cannot be captured into CUDA graphs yet; leave the capture out, calls are sent in batches anyway"
_POOLS = "the allocator is on the worker and has no private pools"
_HISTORY = "the allocator's blocks are on the worker; torch.cuda.memory_stats() has the figures"
_TUNING = "TunableOp picks kernels of a local GPU"
_IPC = "device memory cannot be shared between processes"
_COMPILED = "there is no CUDA compiler or driver in this process"
_ALLOCATORS = "device memory is allocated on the worker"
_WORKSPACE = "cuBLAS runs on the worker, with its own workspace"

_FUNCTIONS: dict[str, tuple[str, str]] = {
    # name in torch._C: (what the user called, why not)
    "_cuda_getCurrentBlasHandle": ("torch.cuda.current_blas_handle", NATIVE_HANDLES),
    "_cuda_getCurrentSolverHandle": ("torch.cuda.current_solver_handle", NATIVE_HANDLES),
    "get_cuda_stream": ("torch._C.get_cuda_stream", NATIVE_HANDLES),
    "_cuda_getHipblasltVersion": ("torch._C._cuda_getHipblasltVersion", "it is ROCm's"),
    "_cuda_jiterator_compile_and_launch_kernel": ("torch.cuda.jiterator", _COMPILED),
    "_cuda_memorySnapshot": ("torch.cuda.memory_snapshot", _HISTORY),
    "_cuda_record_memory_history": ("torch.cuda.memory._record_memory_history", _HISTORY),
    "_cuda_record_memory_history_legacy": ("torch.cuda.memory._record_memory_history", _HISTORY),
    "_cuda_attach_out_of_memory_observer": ("torch._C._cuda_attach_out_of_memory_observer", _HISTORY),
    "_cuda_getMemoryMetadata": ("torch.cuda.memory._get_memory_metadata", _HISTORY),
    "_cuda_setMemoryMetadata": ("torch.cuda.memory._set_memory_metadata", _HISTORY),
    "_cuda_allocationTraceback": ("torch.cuda.memory._get_allocation_traceback", _HISTORY),
    "_cuda_getAllocator": ("torch.cuda.memory._get_current_allocator", _ALLOCATORS),
    "_cuda_customAllocator": ("torch.cuda.memory.CUDAPluggableAllocator", _ALLOCATORS),
    "_cuda_changeCurrentAllocator": ("torch.cuda.memory.change_current_allocator", _ALLOCATORS),
    "_cuda_cudaHostAllocator": ("torch.cuda.memory._host_allocator", _ALLOCATORS),
    "_cuda_cudaCachingAllocator_raw_alloc": ("torch.cuda.caching_allocator_alloc", _ALLOCATORS),
    "_cuda_cudaCachingAllocator_raw_delete": ("torch.cuda.caching_allocator_delete", _ALLOCATORS),
    "_cuda_beginAllocateToPool": ("torch.cuda.use_mem_pool", _POOLS),
    "_cuda_beginAllocateCurrentThreadToPool": ("torch.cuda.use_mem_pool", _POOLS),
    "_cuda_beginAllocateCurrentStreamToPool": ("torch.cuda.use_mem_pool", _POOLS),
    "_cuda_endAllocateToPool": ("torch.cuda.use_mem_pool", _POOLS),
    "_cuda_releasePool": ("torch.cuda.use_mem_pool", _POOLS),
    "_cuda_checkPoolLiveAllocations": ("CUDA graph trees", _GRAPHS),
    "_cuda_getCheckpointState": ("CUDA graph trees", _GRAPHS),
    "_cuda_setCheckpointPoolState": ("CUDA graph trees", _GRAPHS),
    "_free_And_Remove_DeleterFn": ("CUDA graph trees", _GRAPHS),
    "_has_Standard_Deleter": ("CUDA graph trees", _GRAPHS),
    "_set_storage_access_error_msg": ("CUDA graph trees", _GRAPHS),
    "_set_storage_data_ptr_access_error_msg": ("CUDA graph trees", _GRAPHS),
    "_tensors_data_ptrs_at_indices_equal": ("CUDA graph trees", _GRAPHS),
    "_construct_CUDA_Tensor_From_Storage_And_Metadata": ("CUDA graph trees", _GRAPHS),
    "_cuda_getCublasWorkspaceSize": ("torch.backends.cuda cuBLAS workspace", _WORKSPACE),
    "_cuda_setCublasWorkspaceSize": ("torch.backends.cuda cuBLAS workspace", _WORKSPACE),
    "_cuda_resetCublasWorkspaceSize": ("torch.backends.cuda cuBLAS workspace", _WORKSPACE),
    "_cuda_getCublasLtWorkspaceSize": ("torch.backends.cuda cuBLASLt workspace", _WORKSPACE),
    "_cuda_setCublasLtWorkspaceSize": ("torch.backends.cuda cuBLASLt workspace", _WORKSPACE),
    "_cuda_resetCublasLtWorkspaceSize": ("torch.backends.cuda cuBLASLt workspace", _WORKSPACE),
    "_nccl_unique_id": ("torch.cuda.nccl.unique_id", "processes meet through torch.distributed"),
    "_nccl_init_rank": ("torch.cuda.nccl.init_rank", "processes meet through torch.distributed"),
}

_TUNABLE = [
    "enable",
    "tuning_enable",
    "set_filename",
    "get_filename",
    "set_max_tuning_duration",
    "get_max_tuning_duration",
    "set_max_tuning_iterations",
    "get_max_tuning_iterations",
    "set_rotating_buffer_size",
    "get_rotating_buffer_size",
    "get_results",
    "get_validators",
    "read_file",
    "set_numerical_check_tolerances",
]

_TYPES: dict[str, tuple[str, str]] = {
    "_CUDAGraph": ("torch.cuda.CUDAGraph", _GRAPHS),
    "_CUDAGreenContext": ("torch.cuda.green_contexts", NATIVE_HANDLES),
    "_MemPool": ("torch.cuda.MemPool", _POOLS),
    "_cuda_CUDAAllocator": ("torch.cuda.memory allocators", _ALLOCATORS),
    "_cuda_CUDAAllocator_AllocatorState": ("CUDA graph trees", _GRAPHS),
    "AllocatorState": ("CUDA graph trees", _GRAPHS),
    "_StaticCudaLauncher": ("compiled CUDA kernels", _COMPILED),
    "_FastCudaLauncher": ("compiled CUDA kernels", _COMPILED),
}


def _text(what: str, why: str) -> str:
    return f"{what} is not available on a Waldo device: {why}"


def function(what: str, why: str) -> Callable[..., NoReturn]:
    def not_available(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise NotImplementedError(_text(what, why))

    return not_available


def kind(name: str, what: str, why: str) -> type:
    """A class that can be derived from, but not made."""

    def refuse(cls: type, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise NotImplementedError(_text(what, why))

    return type(name, (), {"__new__": refuse, "__module__": "torch._C"})


def names() -> dict[str, Any]:
    found: dict[str, Any] = {name: function(what, why) for name, (what, why) in _FUNCTIONS.items()}
    found.update({name: kind(name, what, why) for name, (what, why) in _TYPES.items()})
    for part in _TUNABLE:
        found[f"_cuda_tunableop_{part}"] = function(f"torch.cuda.tunable.{part}", _TUNING)
    found["_cuda_record_untuned_enable"] = function("torch.cuda.tunable.record_untuned_enable", _TUNING)
    return found


def ipc(what: str) -> Callable[..., NoReturn]:
    return function(what, _IPC)
