"""Operators of the commonest signatures take their arguments unboxed; nothing of that shows."""

import gc

import pytest
import torch

SCALARS = [2, -3, 0.5, True, 2 + 1j, float("nan")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("scalar", SCALARS, ids=str)
@pytest.mark.parametrize("name", ["add", "mul", "add_", "mul_", "eq"])
def test_every_kind_of_scalar(name, dtype, scalar):
    """Goal: the value, dtype or error of plain PyTorch, on the first call (no plan yet) and on the second (guessed)."""

    def run(device, other):
        x = torch.tensor([0, 1, 1], device=device).to(dtype)
        arguments = (x, other) if other is not None else (x, x.clone())
        keywords = {"alpha": scalar} if name.startswith("add") and other is None else {}
        try:
            return getattr(torch.Tensor, name)(*arguments, **keywords).cpu()
        except (RuntimeError, TypeError) as error:
            return type(error)

    for other in (scalar, None):
        wanted = run("cpu", other)
        for _ in range(2):
            got = run("cuda", other)
            if isinstance(wanted, type):
                assert got is wanted
            else:
                assert got.dtype == wanted.dtype
                torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


def test_boxed_callers_too():
    """Goal: TorchScript, torch.ops and vmap, which have the arguments boxed or otherwise wrapped."""
    x, y = torch.arange(6.0), torch.arange(6.0).flip(0)

    @torch.jit.script
    def scripted(a, b):
        return a * b + torch.relu(a - b)

    def mapped(a, b):
        return torch.func.vmap(lambda p, q: p * q + 2)(a, b)

    def called(a, b):
        return torch.ops.aten.add.Tensor(a, b, alpha=3)

    for function in (scripted, mapped, called):
        for _ in range(3):
            assert torch.equal(function(x.cuda(), y.cuda()).cpu(), function(x, y)), function


def test_nothing_is_kept():
    """Goal: arguments are lent: a loop leaves no memory behind, and in-place results are their argument."""
    a, b = torch.ones(1000, device="cuda"), torch.ones(1000, device="cuda")
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        c = torch.relu(a * b + b).add_(a).mul_(0.5)
        assert c.neg_() is c
    del c
    assert torch.cuda.memory_allocated() == before


def test_a_wrong_argument_is_an_error_each_time():
    a, b = torch.ones(3, device="cuda"), torch.ones(3, device="cuda")
    assert (a + b).sum().item() == 6
    for _ in range(2):
        with pytest.raises(RuntimeError, match="same device"):
            a + torch.ones(3)
        with pytest.raises(RuntimeError, match="must match the size"):
            a + torch.ones(4, device="cuda")
    assert (a + b).sum().item() == 6
