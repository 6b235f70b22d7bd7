"""Printing a tensor looks at it many times, and every look would be a wait. So fetch what will be shown first, once."""

from __future__ import annotations

from typing import Any

_WHOLE_BYTES_MAX = 64 << 10  # a tensor this small is fetched as it is


def patch() -> None:
    from torch import _tensor_str

    original = _tensor_str._tensor_str

    def tensor_str(self: Any, indent: int) -> str:
        if not _is_ours(self):
            return original(self, indent)
        if self.numel() <= _tensor_str.PRINT_OPTS.threshold or self.numel() * self.element_size() <= _WHOLE_BYTES_MAX:
            return original(self.cpu(), indent)
        if self.dtype.is_complex or self.is_neg():  # rare: printed part by part
            return original(self, indent)
        shown = _tensor_str.get_summarized_data(self).cpu()
        if shown.dtype.is_floating_point and shown.element_size() == 1:
            shown = shown.half()  # as torch does: an 8-bit float has no masked_select
        window = _Window(shown, tuple(self.shape), _tensor_str.PRINT_OPTS.edgeitems)
        formatter = _tensor_str._Formatter(shown)
        return _tensor_str._tensor_str_with_formatter(window, indent, True, formatter)

    _tensor_str._tensor_str = tensor_str


def _is_ours(tensor: Any) -> bool:
    import torch

    return tensor.is_cuda and tensor.layout is torch.strided and type(tensor) in (torch.Tensor, torch.nn.Parameter)


class _Window:
    """Stands for a large tensor of which only the shown corners are here; indexed as if it were all of it."""

    def __init__(self, shown: Any, shape: tuple[int, ...], edge: int) -> None:
        self._shown = shown
        self._shape = shape
        self._edge = edge
        self.dtype = shown.dtype

    def dim(self) -> int:
        return len(self._shape)

    def size(self, dim: int) -> int:
        return self._shape[dim]

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):  # only the first or the last `edge` elements are ever asked for
            return self._shown[key]
        if key >= self._edge and self._shown.size(0) < len(self):
            key -= len(self) - self._shown.size(0)
        return _Window(self._shown[key], self._shape[1:], self._edge)

    def tolist(self) -> Any:
        return self._shown.tolist()

    def item(self) -> Any:
        return self._shown.item()
