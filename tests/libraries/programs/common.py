"""What the programs share: data, and the counters where there are any."""

import contextlib
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched: models come from configs or from packages

import torch
from support import plain_python, waldo_run


def grouped_attention(device):
    """Heads that share keys and values in float32: CUDA has no fused form of it, the CPU has one and is told not to."""
    if device == "cuda":
        return contextlib.nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def seeded(seed=1):
    """The same numbers on every device: the generators of all devices are at the start of one sequence."""
    torch.manual_seed(seed)


def counted(function):
    """(what it returned, waits, asks) of a function; Waldo's own counters, 0 without Waldo."""
    if "waldo" not in sys.modules:
        return function(), 0, 0
    import waldo

    before = waldo.stats()
    result = function()
    after = waldo.stats()
    return result, after["waits"] - before["waits"], after["asks"] - before["asks"]


def two_processes(device, program, launcher=()):
    """What the ranks of a program of this folder saved: on two devices of `waldo run --gpus 2`, or in two CPU processes.

    The processes are started as from a shell; OMP_NUM_THREADS because how work is cut among threads changes last bits."""
    with TemporaryDirectory() as out:
        words = [*launcher, Path(__file__).parent / program, device, out]
        if device == "cuda":
            waldo_run("--", sys.executable, *words, options=["--gpus=2"], timeout=600, OMP_NUM_THREADS=1).ok()
        else:
            plain_python(*words, timeout=600, OMP_NUM_THREADS=1).ok()
        return [torch.load(Path(out) / f"{rank}.pt") for rank in range(2)]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
