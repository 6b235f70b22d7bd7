"""What is computed twice: by a worker's GPU through Waldo, and by plain PyTorch on the same GPU. Each function takes the device
and returns tensors. `python programs.py OUT` runs all of them plainly."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = False


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def pointwise(device):
    x, y = numbers(7, 33).to(device), numbers(7, 33, seed=1).to(device)
    return [f(x) for f in (torch.sin, torch.exp, torch.sigmoid, F.gelu, F.silu, torch.erf)] + [x * y + 2, x / y, x**2]


def reductions(device):
    x = numbers(64, 129).to(device)
    return [x.sum(), x.mean(0), x.std(1), x.softmax(1), x.logsumexp(0), x.cumsum(1), x.amax(1), x.argmin(0), x.norm()]


def products(device):
    x, y = numbers(48, 96).to(device), numbers(96, 32).to(device)
    half = [(x.to(d) @ y.to(d)).float() for d in (torch.float16, torch.bfloat16)]
    return [x @ y, torch.bmm(numbers(3, 4, 5).to(device), numbers(3, 5, 6).to(device)), F.linear(x, y.t()), *half]


def views(device):
    x = numbers(6, 8).to(device)
    x[1:3].mul_(2)
    x.t()[2] = 5
    x.view(-1)[::7].add_(1)
    return [
        x,
        x.roll(2, 1),
        x.flip(0),
        torch.cat([x, x]),
        x[torch.tensor([0, 4], device=device)],
        x[x > 0],
        x.nonzero(),
    ]


def sorting(device):
    x = numbers(9, 31).to(device)
    return [*x.sort(1), *x.topk(5), x.unique(), torch.bincount(torch.arange(9, device=device) % 4), x.to(torch.int64)]


def normalization(device):
    x = numbers(4, 6, 5, 5).to(device)
    norm = nn.BatchNorm2d(6).to(device)
    return [norm(x), norm.eval()(x), norm.running_var, F.layer_norm(x, (5, 5)), F.group_norm(x, 3), F.instance_norm(x)]


def convolutions(device):
    x, w = numbers(2, 3, 12, 12).to(device).requires_grad_(), numbers(4, 3, 3, 3).to(device).requires_grad_()
    y = F.conv2d(x, w, padding=1)
    y.pow(2).sum().backward()
    return [
        y,
        x.grad,
        w.grad,
        F.max_pool2d(x, 2),
        F.avg_pool2d(x, 3),
        F.interpolate(x, scale_factor=2, mode="bilinear"),
    ]


def recurrent(device):
    torch.manual_seed(1)
    lstm, gru = nn.LSTM(5, 7, 2).to(device), nn.GRU(5, 7).to(device)
    x = numbers(6, 3, 5).to(device)
    return [lstm(x)[0], gru(x)[0]]


def attention(device):
    q, k, v = (numbers(2, 4, 10, 16, seed=s).to(device) for s in range(3))
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        return [F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True)]


def linear_algebra(device):
    x = numbers(6, 6).to(device)
    spd = x @ x.t() + 6 * torch.eye(6, device=device)
    return [torch.linalg.inv(spd), torch.linalg.cholesky(spd), torch.linalg.det(spd), torch.linalg.solve(spd, x)]


def spectra(device):
    x = numbers(3, 32).to(device)
    return [torch.view_as_real(torch.fft.rfft(x)), torch.fft.irfft(torch.fft.rfft(x)), x.to(torch.complex64).abs()]


def drawn(device):
    torch.manual_seed(5)
    x = torch.rand(100, device=device), torch.randn(100, device=device), torch.randperm(50, device=device)
    return [*x, F.dropout(torch.ones(200, device=device), 0.3), torch.bernoulli(torch.full((50,), 0.5, device=device))]


def training(device):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 5)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for step in range(5):
        loss = F.cross_entropy(model(numbers(16, 20, seed=step).to(device)), torch.arange(16, device=device) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *model.parameters()]


def mixed_precision(device):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 32), nn.GELU(), nn.Linear(32, 5)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler(device)
    for step in range(4):
        with torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16):
            loss = F.cross_entropy(model(numbers(8, 20, seed=step).to(device)), torch.arange(8, device=device) % 5)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return [loss, *model.parameters()]


PROGRAMS = (pointwise, reductions, products, views, sorting, normalization, convolutions, recurrent, attention,
            linear_algebra, spectra, drawn, training, mixed_precision)  # fmt: skip


def results(device):
    return {f.__name__: [tensor.detach().cpu() for tensor in f(device)] for f in PROGRAMS}


if __name__ == "__main__":
    torch.save(results("cuda" if torch.cuda.is_available() else "cpu"), sys.argv[1])
