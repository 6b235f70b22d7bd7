"""Runs a function on the CPU and on `cuda`, with the same CPU-made inputs, and compares every bit of what comes out."""

import torch
from conformance.comparing import bits, same_number
from torch.utils._pytree import tree_flatten, tree_map


def to_cuda(value, device="cuda"):
    """A copy of a structure of tensors on the device; leaves stay leaves, and keep requires_grad and strides."""

    def move(item):
        if not isinstance(item, torch.Tensor):
            return item
        moved = item.detach().to(device)
        return moved.requires_grad_(item.requires_grad) if item.requires_grad else moved

    return tree_map(move, value)


def copied(value):
    def copy(item):
        if not isinstance(item, torch.Tensor):
            return item
        return item.detach().clone().requires_grad_(item.requires_grad)

    return tree_map(copy, value)


def same_bits(expected, actual, strides=False):
    """Asserts that two tensors are the same: dtype, sizes, every bit (NaN is NaN), and strides when asked."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if strides:
        assert actual.stride() == expected.stride()
    here, there = bits(expected), bits(actual)
    assert torch.equal(there, here), f"{actual.detach().cpu()} instead of {expected}"


def same(expected, actual, strides=False):
    left, left_spec = tree_flatten(expected)
    right, right_spec = tree_flatten(actual)
    assert left_spec == right_spec
    for here, there in zip(left, right):
        if isinstance(here, torch.Tensor):
            same_bits(here, there, strides)
        else:
            assert same_number(here, there)


def check(function, *inputs, strides=False, grad=False, on_cpu=None):
    """`function` on CPU copies of `inputs` and on cuda copies gives the same, and leaves the same in the inputs.

    `grad`: also backward through the sum of all float outputs, comparing every input's gradient. `on_cpu`: what to
    call on the CPU instead, where CUDA takes another decomposition.
    """
    here, there = copied(list(inputs)), to_cuda(list(inputs))
    expected, actual = (on_cpu or function)(*here), function(*there)
    for item in tree_flatten(actual)[0]:
        if isinstance(item, torch.Tensor):
            assert item.is_cuda
    same(expected, actual, strides)
    if grad:
        for result in (expected, actual):
            floats = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor) and t.requires_grad]
            total = sum((t.abs() if t.is_complex() else t).sum() for t in floats)
            total.backward()
        for x, y in zip(tree_flatten(here)[0], tree_flatten(there)[0]):
            if isinstance(x, torch.Tensor) and x.requires_grad:
                assert (x.grad is None) == (y.grad is None)
                if x.grad is not None:
                    same_bits(x.grad, y.grad)
    same(
        [t.detach() if isinstance(t, torch.Tensor) else t for t in tree_flatten(here)[0]],
        [t.detach() if isinstance(t, torch.Tensor) else t for t in tree_flatten(there)[0]],
    )
    return actual


def both_fail(function, *inputs, error=RuntimeError):
    """The CPU raises `error`, and so does cuda, at the call or at the next wait; the session goes on afterwards."""
    import pytest

    with pytest.raises(error):
        function(*copied(list(inputs)))
    with pytest.raises(error) as caught:
        function(*to_cuda(list(inputs)))
        torch.cuda.synchronize()
    assert (torch.ones(2, device="cuda") + 1).tolist() == [2, 2]
    return caught
