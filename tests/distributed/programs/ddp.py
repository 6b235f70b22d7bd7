"""Training with DistributedDataParallel in its variants, and SyncBatchNorm."""

import contextlib
import copy

import torch
import torch.distributed as dist
from ranks import device, main, numbers
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


class Net(nn.Module):
    def __init__(self, branch=False):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 4)
        self.unused = nn.Linear(32, 16) if branch else None

    def forward(self, x, other=False):
        x = torch.relu(self.first(x))
        x = self.unused(x) if other else self.second(x)
        return self.last(torch.relu(x))


def train(rank, size, net, steps=4, optimizer=torch.optim.SGD, accumulate=1, forward=None, **options):
    where = device(rank)
    net = copy.deepcopy(net).to(where)
    model = DistributedDataParallel(net, device_ids=[where.index] if where.type == "cuda" else None, **options)
    opt = optimizer(model.parameters(), lr=0.05)
    losses = []
    for step in range(steps):
        opt.zero_grad()
        for part in range(accumulate):
            last = part == accumulate - 1
            with contextlib.nullcontext() if last else model.no_sync():
                x = numbers(rank, 16, 8, seed=10 * step + part).to(where)
                loss = (forward or (lambda m, x, _s: m(x).square().mean()))(model, x, step)
                loss.backward()
        opt.step()
        losses.append(loss.detach().cpu())
    return [*losses, *(p.detach().cpu() for p in model.parameters()), *(b.cpu() for b in model.buffers())]


def results(rank, size):
    torch.manual_seed(5)
    net, branched = Net(), Net(branch=True)
    found = {
        "plain": train(rank, size, net),
        "adamw": train(rank, size, net, optimizer=torch.optim.AdamW),
        "small buckets": train(rank, size, net, bucket_cap_mb=0.001),
        "bucket view": train(rank, size, net, gradient_as_bucket_view=True),
        "no_sync": train(rank, size, net, accumulate=3),
        "static graph": train(rank, size, net, static_graph=True),
        "unused": train(
            rank, size, branched, find_unused_parameters=True, forward=lambda m, x, s: m(x, s % 2 == rank).mean()
        ),
        "buffers": train(rank, size, nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))),
    }

    # autocast: bfloat16 on both, cast to where the two lists agree (linear)
    where = device(rank)

    def autocast(model, x, _step):
        with torch.autocast(where.type, dtype=torch.bfloat16):
            y = model(x)
        return y.float().square().mean()

    found["autocast"] = train(rank, size, net, forward=autocast)

    model = DistributedDataParallel(
        copy.deepcopy(net).to(where), device_ids=[where.index] if where.type == "cuda" else None
    )
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(where.type, init_scale=256.0)
    for step in range(3):
        opt.zero_grad()
        loss = model(numbers(rank, 16, 8, seed=step).to(where)).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
    found["scaler"] = [*(p.detach().cpu() for p in model.parameters()), torch.tensor(scaler.get_scale())]

    data = TensorDataset(numbers(0, 50, 8))
    sampler = DistributedSampler(data, shuffle=True, seed=3)
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for (batch,) in DataLoader(data, batch_size=4, sampler=sampler):
            total = batch.to(where).sum()
            dist.all_reduce(total)
            seen.append(total.cpu())
    found["sampler"] = seen
    return found


if __name__ == "__main__":
    main(results)
