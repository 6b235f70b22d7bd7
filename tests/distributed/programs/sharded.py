"""FSDP2, DTensor, tensor parallel and SyncBatchNorm."""

import copy

import torch
import torch.distributed as dist
from ranks import device, main, numbers
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


def net():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6))


def local(tensor):
    """Some are the promise of a tensor until they are waited for."""
    return (tensor.wait() if hasattr(tensor, "wait") else tensor).detach().cpu()


def results(rank, size):
    where = device(rank)
    mesh = init_device_mesh(where.type, (size,))
    found = {}

    model = net().to(where)
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    opt = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for step in range(3):
        opt.zero_grad()
        loss = model(numbers(rank, 12, 8, seed=step).to(where)).square().mean()
        loss.backward()
        opt.step()
        losses.append(loss.detach().cpu())
    found["fsdp2"] = [*losses, *(local(p.full_tensor()) for p in model.parameters())]

    big = numbers(0, 6, 4).to(where)
    sharded = distribute_tensor(big, mesh, [Shard(0)])
    doubled = sharded * 2
    found["dtensor"] = [
        local(doubled.full_tensor()),
        local(doubled.to_local()),
        local(doubled.redistribute(mesh, [Shard(1)]).to_local()),
        local(doubled.sum().full_tensor()),
        local(
            DTensor.from_local(numbers(rank, 3).to(where), mesh, [Shard(0)])
            .redistribute(mesh, [Replicate()])
            .to_local()
        ),
    ]

    parallel = parallelize_module(net().to(where), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    x = numbers(0, 5, 8).to(where)
    y = parallel(x)
    y.square().sum().backward()
    found["tensor parallel"] = [local(y), *(local(p.grad.full_tensor()) for p in parallel.parameters())]

    if where.type == "cuda":  # has no CPU form: compared with the whole batch on one rank
        torch.manual_seed(3)
        plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 2))
        together = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)).to(where)
        together(numbers(rank, 4, 2, 6, 6).to(where)).square().sum().backward()
        for p in together.parameters():
            dist.all_reduce(p.grad)
        plain(torch.cat([numbers(r, 4, 2, 6, 6) for r in range(size)])).square().sum().backward()
        found["sync batch norm"] = [
            (p.grad.cpu(), q.grad) for p, q in zip(together.parameters(), plain.parameters(), strict=True)
        ] + [(b.cpu(), c) for b, c in zip(together.buffers(), plain.buffers(), strict=True)]
    return found


if __name__ == "__main__":
    main(results)
