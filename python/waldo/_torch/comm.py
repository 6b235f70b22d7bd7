"""One process, several devices: what nn.DataParallel and torch.cuda.comm call. All of it is copies and sums, which the
workers do; a copy between devices of one worker never passes through this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_SUM = 0


def names() -> dict[str, Any]:
    return {
        "_broadcast": broadcast,
        "_broadcast_out": broadcast_out,
        "_broadcast_coalesced": broadcast_coalesced,
        "_scatter": scatter,
        "_scatter_out": scatter_out,
        "_gather": gather,
        "_gather_out": gather_out,
        "_nccl_version": lambda: (2 << 32) | (27 << 16),
        "_nccl_version_suffix": lambda: b"",
        "_nccl_reduce": nccl_reduce,
        "_nccl_all_reduce": nccl_all_reduce,
        "_nccl_broadcast": nccl_broadcast,
        "_nccl_all_gather": nccl_all_gather,
        "_nccl_reduce_scatter": nccl_reduce_scatter,
    }


def _device(index: int) -> Any:
    import torch

    return torch.device("cpu") if index == -1 else torch.device("cuda", index)


def broadcast(tensor: Tensor, devices: Sequence[int]) -> list[Tensor]:
    return [tensor if tensor.device == _device(index) else tensor.to(_device(index)) for index in devices]


def broadcast_out(tensor: Tensor, out: Sequence[Tensor]) -> list[Tensor]:
    for target in out:
        _same_size("out tensor of torch.cuda.comm.broadcast", target.shape, tensor.shape)
        target.copy_(tensor)
    return list(out)


def broadcast_coalesced(tensors: Sequence[Tensor], devices: Sequence[int], _buffer_size: int) -> list[list[Tensor]]:
    return [list(tensors) if i == 0 else [t.to(_device(d)) for t in tensors] for i, d in enumerate(devices)]


def scatter(
    tensor: Tensor, devices: Sequence[int], chunk_sizes: Sequence[int] | None, dim: int, _streams: Any
) -> list[Tensor]:
    if chunk_sizes is None:
        chunks = list(tensor.chunk(len(devices), dim))
    else:
        if len(chunk_sizes) != len(devices):
            raise RuntimeError(
                f"Expected devices and chunk_sizes to be of same length, but got {len(devices)} and {len(chunk_sizes)}"
            )
        chunks = list(tensor.split_with_sizes(list(chunk_sizes), dim))
    return [chunk.to(_device(index)) for chunk, index in zip(chunks, devices, strict=False)]


def scatter_out(tensor: Tensor, out: Sequence[Tensor], dim: int, _streams: Any) -> list[Tensor]:
    sizes = [target.size(dim) for target in out]
    if sum(sizes) != tensor.size(dim):
        raise RuntimeError(
            f"Total size for output tensors along scatter dim {dim} does not match: {sum(sizes)} and {tensor.size(dim)}"
        )
    for target, chunk in zip(out, tensor.split_with_sizes(sizes, dim), strict=True):
        target.copy_(chunk)
    return list(out)


def gather(tensors: Sequence[Tensor], dim: int, destination: int | None) -> Tensor:
    import torch

    device = _device(torch.cuda.current_device() if destination is None else destination)
    return torch.cat([tensor.to(device) for tensor in tensors], dim)


def gather_out(tensors: Sequence[Tensor], out: Tensor, dim: int) -> Tensor:
    import torch

    return out.copy_(torch.cat([tensor.to(out.device) for tensor in tensors], dim))


def nccl_reduce(inputs: Sequence[Tensor], output: Tensor, root: int, op: int, *_rest: Any) -> None:
    output.copy_(_reduced(inputs, inputs[root].device, op))


def nccl_all_reduce(inputs: Sequence[Tensor], outputs: Sequence[Tensor], op: int, *_rest: Any) -> None:
    result = _reduced(inputs, inputs[0].device, op)
    for output in outputs:
        output.copy_(result)


def nccl_broadcast(inputs: Sequence[Tensor], root: int, *_rest: Any) -> None:
    for i, tensor in enumerate(inputs):
        if i != root:
            tensor.copy_(inputs[root])


def nccl_all_gather(inputs: Sequence[Tensor], outputs: Sequence[Tensor], *_rest: Any) -> None:
    for output in outputs:
        for part, source in zip(output.view(-1).chunk(len(inputs)), inputs, strict=True):
            part.copy_(source.reshape(-1))


def nccl_reduce_scatter(inputs: Sequence[Tensor], outputs: Sequence[Tensor], op: int, *_rest: Any) -> None:
    parts = _reduced(inputs, inputs[0].device, op).view(-1).chunk(len(outputs))
    for output, part in zip(outputs, parts, strict=True):
        output.copy_(part.view_as(output))


def _reduced(inputs: Sequence[Tensor], device: Any, op: int) -> Tensor:
    if op != _SUM:
        raise NotImplementedError("torch.cuda.nccl with an op other than SUM is not available on a Waldo device")
    total = inputs[0].to(device, copy=True)
    for tensor in inputs[1:]:
        total += tensor.to(device)
    return total


def _same_size(what: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise RuntimeError(f"{what}: expected size {list(expected)}, but got {list(got)}")
