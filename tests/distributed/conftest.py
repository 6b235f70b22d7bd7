"""Programs with several ranks, each run twice: under `waldo run` on far devices, and on plain PyTorch with Gloo."""

from pathlib import Path

import pytest
import torch
from host import host  # noqa: F401 (a fixture)
from support import plain_python, waldo_run

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def both(tmp_path):
    """both("program.py", ranks=2) runs it in both ways; returns what every rank got, far and plain."""

    def run(program, ranks=2, options=(), **environment):
        # One thread each: how work is cut among threads changes the last bits of sums.
        environment = {"OMP_NUM_THREADS": 1, **environment}
        far, plain = tmp_path / "far", tmp_path / "plain"
        waldo_run(PROGRAMS / program, far, ranks, options=[f"--gpus={ranks}", *options], **environment).ok()
        plain_python(PROGRAMS / program, plain, ranks, **environment).ok()
        return [[torch.load(where / f"{rank}.pt") for rank in range(ranks)] for where in (far, plain)]

    return run


@pytest.fixture
def program():
    return lambda name: PROGRAMS / name
