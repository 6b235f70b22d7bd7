"""torch.cuda.FloatTensor and its kin, from before torch.device: a CPU build has the names but refuses to make any, and
refuses them as the default tensor type. Old programs use both."""

from __future__ import annotations

from typing import Any

_DTYPES = {
    "FloatTensor": "float32",
    "DoubleTensor": "float64",
    "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16",
    "ByteTensor": "uint8",
    "CharTensor": "int8",
    "ShortTensor": "int16",
    "IntTensor": "int32",
    "LongTensor": "int64",
    "BoolTensor": "bool",
}


class _LegacyType(type):
    dtype: Any

    def __instancecheck__(cls, value: Any) -> bool:
        import torch

        return isinstance(value, torch.Tensor) and value.is_cuda and value.dtype == cls.dtype

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        import torch

        device = torch.device(kwargs.pop("device", "cuda"))
        if kwargs:
            raise TypeError(f"{cls.__name__}() got unexpected arguments {sorted(kwargs)}")
        if device.type != "cuda":
            raise RuntimeError(f"legacy constructor expects device type: cuda but got {device.type}")
        if not args:
            return torch.empty(0, dtype=cls.dtype, device=device)
        if all(isinstance(size, int) for size in args):
            return torch.empty(args, dtype=cls.dtype, device=device)
        (data,) = args
        if isinstance(data, torch.Size):
            return torch.empty(data, dtype=cls.dtype, device=device)
        if isinstance(data, torch.Tensor) and (data.dtype != cls.dtype or not data.is_cuda):
            raise TypeError(f"expected {cls} (got {data.type()})")
        return torch.as_tensor(data, dtype=cls.dtype, device=device)

    def __str__(cls) -> str:
        return cls.__name__


def patch() -> None:
    import torch

    for name, dtype in _DTYPES.items():
        members = {"dtype": getattr(torch, dtype), "is_cuda": True, "is_sparse": False, "__module__": "torch.cuda"}
        # Tensor.type() goes by the whole name, as it does with torch's own.
        setattr(torch.cuda, name, _LegacyType(f"torch.cuda.{name}", (), members))
    original = torch.set_default_tensor_type

    def set_default_tensor_type(kind: Any) -> None:
        name = str(kind) if isinstance(kind, _LegacyType) else kind
        if isinstance(name, str) and name.startswith("torch.cuda.") and (dtype := _DTYPES.get(name[11:])) is not None:
            if not getattr(torch, dtype).is_floating_point:
                raise TypeError(f"only floating-point types are supported as the default type, got {name}")
            torch.set_default_dtype(getattr(torch, dtype))
            torch.set_default_device("cuda")
            return
        if not isinstance(kind, (str, torch.dtype)) or str(name).startswith("torch."):
            torch.set_default_device(None)
        original(kind)

    set_default_tensor_type.__doc__ = original.__doc__
    torch.set_default_tensor_type = set_default_tensor_type
