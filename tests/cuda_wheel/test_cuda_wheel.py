"""A plain `pip install torch` on Linux is a CUDA build. Every operator on `cuda` is ours there too, and the CUDA runtime in this
process is never asked for anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import waldo
from support import ROOT, plain_python, waldo_run
from torch import nn

PACKAGE = Path(waldo.__file__).parent


def test_this_is_a_cuda_build():
    """Goal: the other tests mean something: PyTorch's own kernels for a GPU are in this process."""
    maps = Path("/proc/self/maps").read_text()
    assert "libtorch_cuda.so" in maps
    assert "libcudart" in maps
    assert torch.version.cuda in torch.__version__.replace("cu130", "13.0")


def test_every_operator_is_ours():
    """Goal: nothing that a `cuda` tensor reaches is PyTorch's own code for a GPU, which would follow our addresses."""
    from waldo._torch import cuda_build

    assert cuda_build.foreign_kernels(str(PACKAGE)) == []


def test_every_name_is_ours():
    """Goal: no function of torch._C that looks for a GPU is left."""
    from waldo._torch import cuda_build

    def is_torchs(value):
        return (
            getattr(value, "__module__", None) in (None, "torch._C")
            and type(value).__name__ == "builtin_function_or_method"
        )

    left = [n for n in dir(torch._C) if n.startswith(cuda_build._PREFIXES) and is_torchs(getattr(torch._C, n))]
    ours = [n for n in left if "pybind11" in repr(getattr(getattr(torch._C, n), "__self__", None))]
    assert sorted(set(left) - set(ours) - cuda_build._HARMLESS) == []


def trained(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    data, wanted = torch.randn(6, 1, 8, 8), torch.arange(6) % 5
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(data.to(device)), wanted.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [p.detach().cpu() for p in model.parameters()]


def test_training_is_the_cpus_to_the_bit():
    ours, plain = trained("cuda"), trained("cpu")
    assert ours[0] == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(*(weights for _, weights in (ours, plain)), strict=True))


def test_composites_stay_differentiable():
    """Goal: an operator that only a GPU has in one piece is made of others, and its gradient too."""

    def values(device):
        x = torch.arange(12.0).reshape(3, 4).to(device).requires_grad_()
        nn.functional.rms_norm(x, (4,), torch.full((4,), 2.0, device=device)).pow(2).sum().backward()
        return x.grad.cpu()

    assert torch.equal(values("cuda"), values("cpu"))


def test_what_only_a_gpu_has_says_so():
    with pytest.raises(NotImplementedError, match="memset32_ is not available on a Waldo device"):
        torch.ops.symm_mem.memset32_(torch.zeros(4, dtype=torch.uint32, device="cuda"), 0, 1, 1)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with a libcuda.so.1 that writes down who loads it."""
    folder = tmp_path_factory.mktemp("driver")
    compiler = shutil.which("cc") or shutil.which("gcc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", folder / "libcuda.so.1", ROOT / "tools/no_driver.c"], check=True
    )
    return folder


def asked(driver, run, *command, **options):
    notes = driver / "asked"
    notes.unlink(missing_ok=True)
    search = os.pathsep.join(filter(None, [str(driver), os.environ.get("LD_LIBRARY_PATH")]))
    ran = run(*command, LD_LIBRARY_PATH=search, WALDO_DRIVER_ASKED=notes, **options).ok()
    lines = notes.read_text().splitlines() if notes.exists() else []
    return ran, [line for line in lines if "python" in Path(line.split(" ", 1)[1]).name]


def test_the_driver_tells_of_who_asks(driver):
    """Goal: the next test can fail: PyTorch as it is asks the driver at is_available()."""
    _, lines = asked(driver, plain_python, "-c", "import torch; torch.cuda.is_available()")
    assert lines


def test_nothing_asks_the_driver(driver):
    """Goal: a program that uses most of torch.cuda never makes the CUDA runtime of this process look for a driver."""
    program = Path(__file__).parent / "everything.py"
    ran, lines = asked(driver, waldo_run, program, options=("--gpus", "2"))
    assert "all done" in ran.stdout
    assert lines == []
    assert "CUDA" not in ran.stderr.replace("CUDA_", "")
    assert sys.executable
