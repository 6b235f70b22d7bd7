"""Checks (run_checks.py) as tests: one process per module and device runs all of its checks, then each is compared."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from support import ROOT, plain_python, waldo_run


def names_in(source):
    """The checks of a module, without importing it: what it imports may be missing."""
    return [
        line.split("(")[0].removeprefix("def ")
        for line in source.read_text().splitlines()
        if line.startswith(("def check_", "def only_cuda_"))
    ]


@functools.cache
def results_of(source, device, options=(), timeout=300):
    """All results of a module on a device, and how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.pt"
        command = (ROOT / "tests" / "run_checks.py", source, device, out)
        if device == "cuda":
            ran = waldo_run(*command, options=options, timeout=timeout)
        else:
            ran = plain_python(*command, timeout=timeout)
        results = torch.load(out, weights_only=False) if out.exists() else {}
    return results, ran


def result_of(source, name, device, options=(), timeout=300):
    """What a check returned on a device; the test fails unless it ran to its end there."""
    results, ran = results_of(source, device, options, timeout)
    outcome, value, _ = results.get(name, ("missing", "", 0.0))
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
