"""A recorded small training, cut after every byte in turn."""

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from support import ROOT, WALDO, run

STRIDE = os.environ.get("WALDO_BYTES_STRIDE", "97")  # 1: every byte (make cuts)


@pytest.fixture
def state():
    with tempfile.TemporaryDirectory(prefix="w") as folder:  # short: a socket's path has 100 bytes
        yield Path(folder)
        run([WALDO, "down", "-q"], XDG_STATE_HOME=folder)


def test_a_training_cut_after_every_byte(state):
    """Goal: whichever byte is the last that a link carries, up or down, the losses are the same, in one session."""
    run([WALDO, "bridge"], XDG_STATE_HOME=state).ok()  # starts the daemon, finds nobody at its input, and ends
    (daemon,) = state.rglob("daemon.sock")
    program = ROOT / "tests" / "e2e" / "every_byte.py"
    ran = run([sys.executable, program, daemon, STRIDE], timeout=3600, WALDO_ON=f"unix:{state}/way").ok()
    print(ran.stdout)
    up, down = map(int, re.search(r"(\d+) bytes up, (\d+) down", ran.stdout).groups())
    cuts, links = map(int, re.search(r"(\d+) cuts, (\d+) links", ran.stdout).groups())
    assert cuts == sum(len(range(0, count, int(STRIDE))) for count in (up, down)), "every cut found its byte"
    assert links > cuts, "… and was answered by another link"
    assert ran.stderr == "", "nobody needed to be told"
