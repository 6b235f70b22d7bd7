"""PyTorch's own tests through `cuda`: a part of what `make conformance` runs whole. docs/testing.md says what is compared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def conformance(tmp_path, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WALDO_")}
    command = [sys.executable, "-m", "conformance", "--folder", str(tmp_path), "--processes", "2", *arguments]
    ran = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=3600)
    print(ran.stdout)
    assert ran.returncode == 0, f"{ran.stdout[-6000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


def test_a_fourth_of_all_operators(tmp_path):
    """Goal: 170 operators in float32 give what the CPU gives: forward, backward, out=, in-place, strided, errors."""
    conformance(tmp_path, "--dtypes", "float32", "--every", "4", "--samples-max", "2")


def test_some_operators_of_every_dtype(tmp_path):
    """Goal: so do some of the other dtypes."""
    conformance(tmp_path, "--dtypes", "bfloat16,float16,int64,bool,complex64", "--every", "23", "--samples-max", "5")


@pytest.mark.parametrize("suite", ["module", "optim"])
def test_some_of(suite, tmp_path):
    """Goal: modules and optimizers too."""
    conformance(tmp_path, "--suites", suite, "--dtypes", "float32", "--every", "7")


def test_a_crash_or_a_hang_is_one_variants(tmp_path):
    """Goal: the sweep counts a process that dies or stands still and goes on. Method: variants no child survives."""
    from conformance import sweep

    jobs = [{"suite": "crash", "name": name, "dtype": "float32", "phases": []} for name in ("abort", "hang")]
    good = {"suite": "op", "name": "neg", "dtype": "float32", "phases": ["forward"], "samples_max": 1}
    answers = []
    with (tmp_path / "log").open("a") as log:
        sweep.run([*jobs, good], 1, log, answers.append, variant_seconds=10)
    assert [a["findings"][0]["kind"] if a["findings"] else "equal" for a in answers] == ["crash", "hang", "equal"]
