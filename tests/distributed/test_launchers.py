"""Programs as people start them."""

import json
import sys

import pytest
from support import waldo_run


@pytest.mark.parametrize(
    "launcher",
    [
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        [sys.executable, "-m", "torch.distributed.launch", "--standalone", "--nproc-per-node=2"],
    ],
    ids=["torchrun", "launch"],
)
def test_launchers_and_the_default_backend(tmp_path, program, launcher):
    waldo_run("--", *launcher, program("launched.py"), tmp_path, options=["--gpus=2"], OMP_NUM_THREADS=1).ok()
    for rank in range(2):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        # One wait in a step of DDP: its loss.item().
        assert said == {"world": 2, "cpu": 3.0, "devices": 2, "waits": 1.0}
