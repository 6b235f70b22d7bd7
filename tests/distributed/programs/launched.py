"""What torchrun and torch.distributed.launch (which puts --local-rank first) start: env:// and the default backend, then a step of DDP whose waits are counted."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local_rank)
dist.init_process_group()
assert "cuda:nccl" in str(dist.get_backend_config()), dist.get_backend_config()
cpu = torch.tensor([rank + 1.0])
dist.all_reduce(cpu, group=dist.new_group(backend="gloo"))
model = nn.parallel.DistributedDataParallel(nn.Linear(8, 8).cuda(), device_ids=[local_rank])
opt = torch.optim.SGD(model.parameters(), lr=0.1)


def step():
    opt.zero_grad()
    loss = model(torch.ones(4, 8, device="cuda") * (rank + 1)).square().mean()
    loss.backward()
    opt.step()
    return loss.item()


for _ in range(15):
    step()
waits = None
if "waldo" in sys.modules:
    import waldo

    before = waldo.stats()["waits"]
    for _ in range(10):
        step()
    waits = (waldo.stats()["waits"] - before) / 10
dist.barrier()
said = {"world": dist.get_world_size(), "cpu": cpu.item(), "devices": torch.cuda.device_count(), "waits": waits}
(Path(sys.argv[-1]) / f"{rank}.json").write_text(json.dumps(said))
dist.destroy_process_group()
