"""Tests of the PyTorch front end run in one process that has both: `cuda` is an embedded worker, `cpu` is plain PyTorch.

Waldo must be asked for before the first `import torch`, so it is done here.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if "torch" not in sys.modules:
    os.environ.pop("WALDO_STATS", None)
    import waldo

    waldo.connect("local", gpus=2)

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)
