"""The methods of UntypedStorage that a CPU build compiles without its CUDA half: they would follow a device pointer
(a crash), or refuse. Each goes through a host copy or through our C++; CPU storages keep torch's own methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from waldo._torch import native, unavailable


def patch() -> None:
    import torch

    storage: Any = torch.UntypedStorage
    storage.__new__ = staticmethod(_new_for(storage.__new__))
    for name, ours in _METHODS.items():
        setattr(storage, name, _on_cuda(getattr(storage, name), ours))
    from_dlpack = torch._C._from_dlpack

    def from_dlpack_of_any(capsule: Any) -> Any:
        ours = native.get().from_dlpack(capsule)
        return from_dlpack(capsule) if ours is None else ours

    torch._C._from_dlpack = from_dlpack_of_any


def _new_for(original: Any) -> Any:
    import torch

    @functools.wraps(original)
    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if device is None or (device := torch.device(device)).type != "cuda":
            return original(cls, *args, **kwargs)
        if len(args) == 1 and not isinstance(args[0], int):  # from a sequence of bytes
            return original(cls, *args).to(device=device)
        kwargs.pop("device")
        torch.cuda._lazy_init()
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            return original(cls, *args, **kwargs, allocator=native.get().allocator_address())

    return new


def _on_cuda(original: Any, ours: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.device.type != "cuda":
            return original(self, *args, **kwargs)
        return ours(self, *args, **kwargs)

    return method


def _write_file(self: Any, file: Any, is_real_file: bool, save_size: bool, element_size: int) -> None:
    self.cpu()._write_file(file, is_real_file, save_size, element_size)


def _set_from_file(self: Any, file: Any, offset: Any, is_real_file: bool, element_size: int) -> Any:
    import torch

    host = torch.UntypedStorage(self.nbytes())
    host._set_from_file(file, offset, is_real_file, element_size)
    if host.nbytes() != self.nbytes():
        self.resize_(host.nbytes())
    self.copy_(host)
    return self


def _byteswap(self: Any, dtype: Any) -> None:
    host = self.cpu()
    host.byteswap(dtype)
    self.copy_(host)


def _resize(self: Any, size: int) -> Any:
    native.get().resize_storage(self, size)
    return self


def _tolist(self: Any) -> list[int]:
    return self.cpu().tolist()


_METHODS: dict[str, Callable[..., Any]] = {
    "_write_file": _write_file,
    "_set_from_file": _set_from_file,
    "byteswap": _byteswap,
    "resize_": _resize,
    "tolist": _tolist,  # one wait, not one per byte
    "_share_cuda_": unavailable.ipc("sending a cuda tensor to another process"),
}
