"""einops"""

import torch
from einops import einsum, pack, rearrange, reduce, repeat, unpack
from einops.layers.torch import EinMix, Rearrange, Reduce
from torch import nn


def check_functions(device):
    """rearrange, reduce, repeat, einsum, pack, unpack; gradients"""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 8, 6, generator=generator).to(device).requires_grad_()
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=3)
    out = [patches, repeat(patches, "b n d -> b n (r d)", r=2), rearrange([patches, patches], "k b n d -> b n d k")]
    out += [reduce(x, "b c (h p) w -> b c h", how, p=2) for how in ("mean", "max", "sum", "min", "prod")]
    out += [einsum(patches, patches, "b i d, b j d -> b i j")]
    packed, shapes = pack([x.flatten(2), x.mean((2, 3))[..., None]], "b c *")
    out += [packed, *unpack(packed, shapes, "b c *")]
    sum(o.square().sum() for o in out).backward()
    return [out, x.grad]


def check_layers(device):
    """Rearrange, Reduce and EinMix as layers: two steps"""
    torch.manual_seed(3)
    net = nn.Sequential(
        Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=2, q=2),
        EinMix("b n d -> b n e", weight_shape="d e", bias_shape="e", d=12, e=8),
        nn.GELU(),
        Reduce("b n e -> b e", "mean"),
        nn.Linear(8, 2),
    ).to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x = torch.randn(4, 3, 8, 8).to(device)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    return net.state_dict()
