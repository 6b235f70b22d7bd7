"""What the programs of this folder share. Each is one unmodified torch.distributed program: it runs on `nccl` where there
are devices (under `waldo run`) and on plain `gloo` elsewhere, and writes what every rank got.

    python PROGRAM.py OUT [RANKS]

With RANK in the environment it is that rank alone, on its host's device LOCAL_RANK, as a launcher starts it there.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = timedelta(seconds=int(os.environ.get("GROUP_SECONDS", 60)))


def device(rank):
    return torch.device("cuda", local(rank)) if torch.cuda.is_available() else torch.device("cpu")


def local(rank):
    return int(os.environ.get("LOCAL_RANK", rank))


def numbers(rank, *shape, dtype=torch.float32, seed=0):
    """The same on every machine; other ranks can make it too."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if dtype.is_complex or dtype.is_floating_point:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    return torch.randint(0, 7, shape, generator=generator).to(dtype)


def _rank(rank, body, out, size, store):
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(local(rank))
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    result = body(rank, size)
    torch.save(result, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def main(body):
    out = sys.argv[1]
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    os.makedirs(out, exist_ok=True)
    store = Path(out) / "store"
    if "RANK" in os.environ:
        _rank(int(os.environ["RANK"]), body, out, size, str(store))
        return
    store.unlink(missing_ok=True)
    mp.spawn(_rank, args=(body, out, size, str(store)), nprocs=size)
