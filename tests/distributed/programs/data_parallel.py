"""One process, several devices: nn.DataParallel, compared with the same chunks one after the other on the CPU."""

import copy
import sys

import torch
from ranks import numbers
from torch import nn

count = torch.cuda.device_count()
assert count == 3, count
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

for batch in (9, 7, 2, 1):
    for wrapped_first in (False, True):
        inner = copy.deepcopy(net)
        if wrapped_first:
            model = nn.DataParallel(inner)
            model.to("cuda")
        else:
            model = nn.DataParallel(inner.to("cuda"))
        x = numbers(batch, batch, 6)
        y = model(x.cuda())
        assert y.device == torch.device("cuda", 0) and y.shape == (batch, 3), (y.device, y.shape)
        y.square().sum().backward()
        plain = copy.deepcopy(net)
        expected = torch.cat([plain(chunk.clone()) for chunk in x.chunk(count)])
        expected.square().sum().backward()
        assert torch.equal(y.cpu(), expected), (batch, wrapped_first, (y.cpu() - expected).abs().max())
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.grad.cpu(), q.grad, rtol=1e-6, atol=1e-6)
replicas = nn.parallel.replicate(net.cuda(), range(count))
assert [r[0].weight.device.index for r in replicas] == [0, 1, 2]
assert next(nn.DataParallel(net.cuda(), device_ids=[1, 2]).to("cuda:1").parameters()).device.index == 1
print("ok", file=sys.stderr)
