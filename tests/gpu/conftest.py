"""The CUDA worker, on a machine with a GPU (`make gpu-check`): in this process `cuda` is an embedded worker; what is compared
with it runs in a plain Python process on the GPU itself. Where there is no GPU both are the CPU, so that the tests stay true."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS adds in another order from run to run
if "torch" not in sys.modules:
    os.environ.pop("WALDO_STATS", None)
    import waldo

    waldo.connect("local")

import pytest
import torch


def pytest_report_header():
    return f"worker: {torch.cuda.get_device_name()} ({'a GPU' if on_gpu() else 'no GPU here: the CPU poses'})"


def on_gpu():
    from waldo._torch import native

    return native.get().device_info(0)["kind"] == "cuda"


@pytest.fixture
def gpu():
    """A test that only means something on a GPU."""
    if not on_gpu():
        pytest.skip("there is no GPU here")
