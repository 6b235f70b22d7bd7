"""Calls that are larger than the protocol carries: an error at their line that says so, and the session lives."""

import pytest
import torch


def still_alive():
    return (torch.arange(3, device="cuda") + 1).tolist() == [1, 2, 3]


def test_twenty_thousand_losses_are_stacked():
    losses = [torch.full((), float(i), device="cuda") for i in range(20000)]
    assert torch.stack(losses).sum().item() == sum(range(20000))
    assert torch.cat([losses[1].view(1)] * 20000).sum().item() == 20000


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.div(x, x, rounding_mode="a" * 1_000_000),
        lambda x: torch.ops.aten.split_with_sizes_copy(x.expand(40000).contiguous(), [1] * 40000),
        lambda x: torch._foreach_add([x] * 30000, 1),
        lambda x: torch.ones([1] * 129, device="cuda") * 2,
        lambda x: x.view([1] * 130) + 1,
        lambda x: x.repeat([1] * 140),
        lambda x: x.expand(2**61).sum(),
        lambda x: torch.scatter_reduce(x, 0, x.long(), x, "b" * 1_000_000),
    ],
    ids=[
        "text",
        "many sizes",
        "many tensors",
        "129 dims",
        "view of 130 dims",
        "repeat to 140 dims",
        "2**61 elements",
        "b",
    ],
)
def test_a_call_that_cannot_be_sent_is_an_error_at_its_line(call):
    with pytest.raises((RuntimeError, NotImplementedError)) as raised:
        call(torch.ones(1, device="cuda"))
    assert type(raised.value).__name__ != "DeviceLostError"
    assert "gone" not in str(raised.value)
    assert still_alive()
