"""What must run unmodified: every check of unmodified/*.py gives on `cuda` through us, bit for bit, what it gives on the CPU.

Method: one process per module and device runs all its checks; each check is a test here. On the CPU worker the same
kernels run, so nothing less than equal bits will do; where CUDA has another decomposition the check itself writes that
one out for the CPU.
"""

from pathlib import Path

import pytest
import torch
from checks import differences, names_in, result_of

FOLDER = Path(__file__).parent / "unmodified"
MODULES = {"api": (), "tensors": (), "modules": (), "data": (), "two_gpus": ("--gpus", "2")}
CHECKS = [(module, name) for module in MODULES for name in names_in(FOLDER / f"{module}.py")]


@pytest.mark.parametrize(("module", "name"), CHECKS, ids=[f"{module}-{name}" for module, name in CHECKS])
def test_unmodified(module, name):
    source = FOLDER / f"{module}.py"
    ours = result_of(source, name, "cuda", MODULES[module])
    if name.startswith("check_"):
        wrong = differences(ours, result_of(source, name, "cpu"))
        assert not wrong, "\n".join(wrong[:20])


def test_the_comparison_can_fail():
    """Goal: one bit of difference, another dtype or a missing value is seen."""
    x = torch.ones(3)
    y = torch.nextafter(x, torch.tensor(2.0))
    assert not differences([{"a": x, "b": float("nan")}], [{"a": x.clone(), "b": float("nan")}])
    assert differences([{"a": x}], [{"a": y}])
    assert differences(x, x.double())
    assert differences([x], [x, x])
    assert differences(1.0, 1.0000001)
