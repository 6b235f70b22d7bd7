"""What must run unmodified: every check of unmodified/*.py gives on `cuda` through us, bit for bit, what it gives on the CPU.

Method: one process per module and device runs all its checks; each check is a test here. On the CPU worker the same
kernels run, so nothing less than equal bits will do; where CUDA has another decomposition the check itself writes that
one out for the CPU.
"""

import functools
import importlib
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from support import plain_python, waldo_run

FOLDER = Path(__file__).parent / "unmodified"
MODULES = {"api": (), "tensors": (), "modules": (), "data": (), "two_gpus": ("--gpus", "2")}

sys.path.insert(0, str(FOLDER))
CHECKS = [
    (module, name)
    for module in MODULES
    for name in vars(importlib.import_module(module))
    if name.startswith(("check_", "only_cuda_"))
]


@functools.cache
def results_of(module, device):
    """All results of a module on a device, and how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.pt"
        command = (FOLDER / "run_checks.py", module, device, out)
        if device == "cuda":
            ran = waldo_run(*command, options=MODULES[module])
        else:
            ran = plain_python(*command)
        results = torch.load(out, weights_only=False) if out.exists() else {}
    return results, ran


def result_of(module, name, device):
    results, ran = results_of(module, device)
    outcome, value = results.get(name, ("missing", ""))
    if outcome in ("crashed", "missing"):
        pytest.fail(f"on {device}: {outcome} (exit code {ran.returncode})\n{value}\n{ran.stderr[-4000:]}")
    if outcome == "raised":
        pytest.fail(f"on {device}:\n{value}")
    return value


def differences(ours, reference, where=""):
    """What is not the same, bit for bit, in two nested results; NaN equals NaN."""
    if isinstance(reference, (list, tuple)):
        if len(ours) != len(reference):
            return [f"{where}: {len(ours)} values, not {len(reference)}"]
        return [
            d for i, (a, b) in enumerate(zip(ours, reference, strict=True)) for d in differences(a, b, f"{where}[{i}]")
        ]
    if isinstance(reference, dict):
        if ours.keys() != reference.keys():
            return [f"{where}: {list(ours)}, not {list(reference)}"]
        return [d for key in reference for d in differences(ours[key], reference[key], f"{where}[{key!r}]")]
    if isinstance(reference, torch.Tensor):
        if (ours.dtype, ours.shape) != (reference.dtype, reference.shape):
            return [f"{where}: {ours.dtype} {list(ours.shape)}, not {reference.dtype} {list(reference.shape)}"]
        if torch.equal(ours, reference) or torch.equal(ours.nan_to_num(), reference.nan_to_num()):
            return []
        distance = (ours.to(torch.complex128) - reference.to(torch.complex128)).abs()
        return [
            f"{where}: {int((distance != 0).sum())} of {ours.numel()} differ, by {distance.max().item():.3g} at most"
        ]
    if ours != reference and not (ours != ours and reference != reference):
        return [f"{where}: {ours!r}, not {reference!r}"]
    return []


@pytest.mark.parametrize(("module", "name"), CHECKS, ids=[f"{module}-{name}" for module, name in CHECKS])
def test_unmodified(module, name):
    ours = result_of(module, name, "cuda")
    if name.startswith("check_"):
        wrong = differences(ours, result_of(module, name, "cpu"))
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
