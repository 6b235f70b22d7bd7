"""DistributedDataParallel on two far ranks against plain PyTorch with Gloo: the ratio of a step's times.

    waldo run --gpus 2 bench/ddp.py [PAIRS]

Both sides run in the same two processes: the default group has Gloo for CPU tensors and ours for cuda. Blocks of steps
take turns at going first; every block ends with a `loss.item()` and a barrier. The figure is the median of the pairs'
ratios. The model has 1.05 M parameters; one thread per rank on both sides."""

import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS = 5


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 640), nn.ReLU(), nn.Linear(640, 200))


class Side:
    def __init__(self, device, batch):
        self.device = torch.device(device)
        self.model = DistributedDataParallel(net().to(device))
        self.opt = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.x = torch.randn(batch, 256).to(device)

    def block(self):
        begin = time.perf_counter()
        for _ in range(STEPS):
            self.opt.zero_grad()
            loss = self.model(self.x).square().mean()
            loss.backward()
            self.opt.step()
        loss.item()
        return (time.perf_counter() - begin) / STEPS


def rank_main(rank, out, pairs, batch):
    torch.set_num_threads(1)
    torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{out}/store", rank=rank, world_size=2)
    token = torch.zeros(1)
    far, plain = Side(f"cuda:{rank}", batch), Side("cpu", batch)
    times = {far: [], plain: []}
    for pair in range(pairs + 3):
        for side in (far, plain) if pair % 2 else (plain, far):
            dist.all_reduce(token)  # begin together
            seconds = side.block()
            if pair >= 3:
                times[side].append(seconds)
    ratios = [a / b for a, b in zip(times[far], times[plain], strict=True)]
    if rank == 0:
        figures = {
            "ratio": statistics.median(ratios),
            "quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
            "far_ms": statistics.median(times[far]) * 1e3,
            "plain_ms": statistics.median(times[plain]) * 1e3,
            "parameters": sum(p.numel() for p in plain.model.parameters()),
            "batch": batch,
        }
        print(json.dumps(figures))
    dist.destroy_process_group()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
        samples = int(sys.argv[2]) if len(sys.argv) > 2 else 64
        mp.spawn(rank_main, args=(str(Path(folder)), count, samples), nprocs=2)
