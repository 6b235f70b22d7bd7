"""Every program of programs.py gives through Waldo what plain PyTorch gives on the same GPU."""

from pathlib import Path

import programs
import pytest
import torch
from conftest import on_gpu
from support import plain_python

# Not to the bit, and why. What is not named here has to be.
TOLERANCE = {
    "recurrent": (1e-5, "plain PyTorch takes cuDNN's recurrent cells, the worker the fused cells of PyTorch"),
    "convolutions": (1e-4, "cuDNN picks its algorithm per process, by what memory is free"),
    "training": (1e-5, "foreach kernels of lists fall into other chunks"),
    "mixed_precision": (1e-3, "as training, in 16 bits"),
}
ON_CPU = {
    "drawn": "the embedded CPU worker has the CPU's generator",
    "mixed_precision": "the CPU casts to another type",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "results.pt"
    plain_python(Path(programs.__file__), out).ok()
    return torch.load(out)


@pytest.mark.parametrize("program", [f.__name__ for f in programs.PROGRAMS])
def test_a_program_gives_what_the_gpu_gives(program, plain):
    if program in ON_CPU and not on_gpu():
        pytest.skip(ON_CPU[program])
    ours = [tensor.detach().cpu() for tensor in getattr(programs, program)("cuda")]
    assert len(ours) == len(plain[program])
    tolerance, _ = TOLERANCE.get(program, (0, ""))
    for a, b in zip(ours, plain[program], strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
