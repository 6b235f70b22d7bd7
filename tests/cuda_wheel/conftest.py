"""Waldo in a CUDA build of PyTorch on a machine without a GPU (`make cuda-wheel` has one installed): a process of its own,
as Waldo must be asked for before the first `import torch`."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_torch = Path(find_spec("torch").submodule_search_locations[0])
IS_CUDA_BUILD = re.search(r"^cuda.*'[0-9.]+'", (_torch / "version.py").read_text(), re.MULTILINE) is not None

if IS_CUDA_BUILD and "torch" not in sys.modules:
    os.environ.pop("WALDO_STATS", None)
    import waldo

    waldo.connect("local", gpus=2)


def pytest_ignore_collect(collection_path, config):
    return None if IS_CUDA_BUILD else True


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)
