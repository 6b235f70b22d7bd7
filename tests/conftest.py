"""Fixtures of every Python test; the functions they share are in support.py."""

import os
from pathlib import Path

import pytest
from support import WALDO

# On a machine that does other work too, OpenMP threads that spin at each barrier take what their partners need: a
# training step of 20 ms then takes seconds, with and without Waldo. Before any import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

OF_THEIR_OWN = {Path(__file__).parent / name for name in ("torch", "gpu", "cuda_wheel", "distributed")}


def pytest_ignore_collect(collection_path, config):
    """These import torch, most of them with Waldo: each has a process of its own, as `pytest tests/torch`."""
    if collection_path not in OF_THEIR_OWN:
        return None
    asked = any(
        (config.invocation_params.dir / word.split("::")[0]).resolve().is_relative_to(collection_path)
        for word in config.args
    )
    return None if asked else True


@pytest.fixture(scope="session", autouse=True)
def installed():
    """The tests use what is installed, as a user would."""
    if not WALDO.exists():
        pytest.exit(f"{WALDO} is missing: run `make build` first", returncode=2)
    return WALDO


@pytest.fixture
def script(tmp_path):
    """script(text, name="program.py") writes a program and returns its path."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
