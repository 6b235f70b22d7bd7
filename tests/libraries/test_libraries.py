"""Libraries people use, unmodified: each program of programs/ gives on `cuda` through us, bit for bit, what it gives on the CPU.

Method: that of e2e/test_unmodified.py. A library that is not installed is skipped, unless WALDO_LIBRARIES=all
(`make test-libraries`) says that all are. Where CUDA takes another path than the CPU, the program names the check in
DIFFERENT with a bound and the reason; what was measured is recorded.
"""

import math
import os

import pytest
import torch
from checks import differences, result_of
from libraries import LIBRARIES, record

CHECKS = [(library, name) for library in LIBRARIES for name in library.checks()]


def distance(ours, reference):
    """The largest relative difference between two nested results of the same shape."""
    if isinstance(reference, dict):
        assert ours.keys() == reference.keys()
        return max((distance(ours[key], reference[key]) for key in reference), default=0.0)
    if isinstance(reference, (list, tuple)):
        assert len(ours) == len(reference)
        return max((distance(a, b) for a, b in zip(ours, reference, strict=True)), default=0.0)
    a, b = torch.as_tensor(ours, dtype=torch.float64), torch.as_tensor(reference, dtype=torch.float64)
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() if b.numel() else 0.0


@pytest.mark.parametrize(("library", "name"), CHECKS, ids=[f"{lib.distribution}-{name}" for lib, name in CHECKS])
def test_library(library, name):
    if library.version() is None:
        if os.environ.get("WALDO_LIBRARIES") == "all":
            pytest.fail(f"{library.distribution} is not installed")
        pytest.skip(f"{library.distribution} is not installed: make test-libraries")
    record(library, name, "failed")
    ours = result_of(library.program, name, "cuda", timeout=900)
    if name.startswith("only_cuda_"):
        return record(library, name, "as promised")
    reference = result_of(library.program, name, "cpu", timeout=900)
    wrong = differences(ours, reference)
    if name in library.different():
        bound, reason = library.different()[name]
        measured = distance(ours, reference)
        assert wrong, "equal: no longer different, take it out of DIFFERENT"
        assert math.isfinite(measured) and measured <= bound
        return record(library, name, f"{measured:.1g} apart, relatively: {reason}")
    assert not wrong, "\n".join(wrong[:20])
    record(library, name, "equal")


def test_the_distance_can_fail():
    """Goal: a difference anywhere is seen, and what has another shape is none."""
    assert distance({"a": [1.0, torch.ones(3)]}, {"a": [1.0, torch.ones(3)]}) == 0
    assert distance([torch.tensor([1.0, 2.2])], [torch.tensor([1.0, 2.0])]) == pytest.approx(0.1)
    with pytest.raises(AssertionError):
        distance([1.0], [1.0, 2.0])


def test_every_check_says_what_it_runs():
    """Goal: docs/libraries.md has a line for each."""
    assert all(what for library in LIBRARIES for what in library.checks().values())
    assert all(set(library.different()) <= set(library.checks()) for library in LIBRARIES)
    assert sum(library.quick for library in LIBRARIES) == 3
