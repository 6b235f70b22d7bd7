"""Every collective of c10d on far devices equals Gloo on the CPU, to the bit for two ranks."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "programs"))

CUDA_ONLY = ("all_reduce AVG", "all_reduce SUM bool", "premul_sum")


def equal(a, b):
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_two_ranks_equal_gloo_to_the_bit(both):
    far, plain = both("collectives.py")
    compared = 0
    for rank in range(2):
        assert far[rank].keys() >= plain[rank].keys()
        for name, expected in plain[rank].items():
            got = far[rank][name]
            if isinstance(expected, str):  # what Gloo cannot
                continue
            assert not isinstance(got, str), f"{name}: {got}"
            assert equal(got, expected), f"{name} on rank {rank}: {got} is not {expected}"
            compared += 1
    assert compared > 130, compared
    _check_what_gloo_cannot(far)


def _check_what_gloo_cannot(far):
    from ranks import numbers

    for rank in range(2):
        inputs = [numbers(r, 33, 7) for r in range(2)]
        assert torch.equal(far[rank]["all_reduce AVG float32"], inputs[0] / 2 + inputs[1] / 2)
        whole = [numbers(r, 33, 7, dtype=torch.int64) for r in range(2)]
        assert torch.equal(far[rank]["all_reduce AVG int64"], (whole[0] + whole[1]) // 2)
        truths = [numbers(r, 33, 7, dtype=torch.bool) for r in range(2)]
        assert torch.equal(far[rank]["all_reduce SUM bool"], truths[0] | truths[1])
        for dtype in (torch.bfloat16, torch.float16):
            small = [numbers(r, 33, 7, dtype=dtype) for r in range(2)]
            assert torch.equal(far[rank][f"all_reduce SUM {str(dtype)[6:]}"], small[0] + small[1])
        assert equal(far[rank]["all_gather_uneven"], [numbers(r, r + 1, 2) for r in range(2)])
        assert equal(far[rank]["all_to_all"], [numbers(r, r + rank + 1, seed=rank) for r in range(2)])
        factors = [numbers(r, 9) * 0.5 for r in range(2)]
        assert torch.equal(far[rank]["premul_sum"], factors[0] + factors[1])


@pytest.mark.parametrize("ranks", [3, 4])
def test_more_ranks_agree_among_each_other_and_with_gloo(both, ranks):
    far, plain = both("collectives.py", ranks=ranks)
    for name, value in far[0].items():
        if name.startswith(("all_reduce SUM float", "in_order", "asynchronous", "broadcast")):
            for rank in range(1, ranks):
                assert equal(_of_all(name, far[rank][name]), _of_all(name, value)), name
    for name, expected in plain[0].items():
        got = far[0][name]
        if isinstance(expected, str):
            continue
        assert not isinstance(got, str), f"{name}: {got}"
        for a, b in zip(
            got if isinstance(got, list) else [got], expected if isinstance(expected, list) else [expected], strict=True
        ):
            if a.dtype in (torch.float32, torch.float64):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
            elif not a.dtype.is_floating_point and not a.dtype.is_complex:
                assert torch.equal(a, b), name


def _of_all(name, value):
    """Without what differs from rank to rank."""
    return value[:2] if name == "asynchronous" else value
