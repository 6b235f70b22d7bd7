"""A step of DDP in which rank 1 begins its backward only when rank 0 has read the last gradient of its own: that can be
read only if the reductions of the buckets before it, which wait for rank 1, hold up nothing."""

from datetime import timedelta

import torch
import torch.distributed as dist
from ranks import device, main, numbers
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel


def results(rank, size):
    where = device(rank)
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(8, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 4)).to(where)
    model = DistributedDataParallel(net, bucket_cap_mb=0.001)  # the first bucket takes a megabyte
    store = dist.distributed_c10d._get_default_store()
    events = []

    def reduce(group, bucket):
        events.append(f"bucket {bucket.index()}")
        return allreduce_hook(group, bucket)

    def last_gradient(gradient):
        events.append(f"last gradient {gradient.abs().sum().item() > 0}")
        store.set("read", "1")

    model.register_comm_hook(None, reduce)
    for step in range(2):  # the first one is of a single bucket, always
        loss = model(numbers(rank, 16, 8, seed=step).to(where)).square().mean()
        if step == 1:
            events.clear()
            if rank == 0:
                net[0].weight.register_hook(last_gradient)
            else:
                store.wait(["read"], timedelta(seconds=50))
        loss.backward()
    return {"events": events, "gradients": [p.grad.cpu() for p in net.parameters()]}


if __name__ == "__main__":
    main(results)
