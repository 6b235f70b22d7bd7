"""Tensors: to and fro, arithmetic, views, indexing, printing, copying, saving."""

import copy
import io
import pickle
import tempfile
import warnings
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint


def check_to_and_fro(device):
    x = torch.randn(5, 7).to(device)
    assert x.is_cuda == device.startswith("cuda")
    y = x.double().to("cpu").to(device, torch.float32).to(device)
    return [
        x,
        y,
        x.cpu().numpy().tolist(),
        x[2, 3].item(),
        x[1].tolist(),
        float(x[0, 0]),
        int(x[0, 0] * 100),
        bool(x[0, 0]),
    ]


def check_dtypes(device):
    out = []
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16,
                  torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128):  # fmt: skip
        x = torch.arange(-3, 9).to(dtype).to(device)
        out += [x, x.to(torch.float32) if not dtype.is_complex else x.abs(), x == x[3], x.nonzero()]
    return out


def check_print(device):
    x = torch.randn(3, 4).to(device)
    text = [repr(x), str(x[0]), f"{x[0, 0]:.3f}", repr(torch.arange(2000.0).to(device)), repr(x > 0)]
    return [t.replace(", device='cuda:0'", "").replace("\n      ", "") for t in text]


def check_mm(device):
    x = torch.randn(33, 17).to(device)
    a, b = torch.randn(4, 9, 5).to(device), torch.randn(4, 5, 6).to(device)
    return [torch.mm(x, x.T), x @ x.T, a @ b, torch.einsum("bij,bjk->bik", a, b), torch.addmm(x @ x.T, x, x.T, beta=2)]


def check_arithmetic(device):
    a, b = torch.randn(6, 1, 5).to(device), torch.randn(4, 5).to(device)
    out = [
        a + b,
        a - b,
        a * b,
        a / b,
        a**2,
        a.abs().sqrt(),
        a.exp(),
        torch.sigmoid(a),
        torch.tanh(a),
        a > b,
        a.clamp(-1, 1),
    ]
    out += [
        a.sum(),
        a.mean(0),
        a.std(-1),
        a.var(),
        a.max(),
        a.min(2),
        a.argmax(1),
        a.norm(),
        a.softmax(-1),
        a.cumsum(0),
    ]
    out += [2 + a, 1 / a, a // 2, a % 2, torch.where(a > 0, a, -a), torch.maximum(a, b), torch.lerp(a, a + 1, 0.3)]
    out += [
        a.sort(-1),
        a.topk(2),
        torch.cat([a, a]),
        torch.stack([b, b]),
        b.flip(0),
        b.roll(1),
        b.tril(),
        torch.outer(b[0], b[1]),
    ]
    return out


def check_factories(device):
    x = torch.ones(2, 3, device=device)
    out = [x, torch.zeros(3, device=device), torch.full((2,), 5, device=device), torch.arange(7, device=device)]
    out += [torch.eye(3, device=device), torch.linspace(0, 1, 5, device=device), torch.tensor([1.5, 2], device=device)]
    out += [
        torch.zeros_like(x),
        torch.full_like(x, 3),
        x.new_zeros(4),
        x.new_tensor([1, 2]),
        torch.as_tensor([1, 2], device=device),
    ]
    with torch.device(device):
        out += [torch.ones(3), torch.nn.Linear(2, 2).weight * 0]
    return out


def check_views_and_in_place(device):
    x = torch.randn(6, 8).to(device)
    y = x.view(8, 6).t()[1:4]
    y.mul_(2)
    x[2] = 7
    x[:, 1::3] += 1
    x.data.add_(0.5)
    torch.add(x, 1, out=x)
    x.T[0].fill_(-1)
    z = x.reshape(3, 2, 8).permute(2, 0, 1)
    z.squeeze().unsqueeze(0).expand(2, 8, 3, 2).contiguous()
    w = x.narrow(0, 1, 2).clone().zero_()
    return [
        x,
        y,
        z,
        w,
        x.unfold(1, 3, 2),
        x.as_strided((2, 3), (1, 4), 2),
        torch.view_as_complex(x.view(24, 2)),
        x.diagonal(),
    ]


def check_indexing_and_masks(device):
    x = torch.randn(6, 5).to(device)
    i = torch.tensor([0, 5, 2, 2]).to(device)
    mask = x > 0
    out = [
        x[i],
        x[:, i.clamp(max=4)],
        x[i, i.clamp(max=4)],
        x[mask],
        x[mask[:, 0]],
        x.masked_fill(mask, 0),
        mask.nonzero(),
    ]
    out += [x.gather(1, i.view(1, 4).clamp(max=4)), x.index_select(0, i), torch.masked_select(x, mask), x[None, ..., 1]]
    out += [
        torch.unique(i),
        torch.bincount(i),
        x[torch.tensor([1, 3])],
        x[[0, 2]],
        x[mask].sum(),
        torch.nonzero(mask, as_tuple=True),
    ]
    x[mask] = -x[mask] * 2
    x[i[:2]] = 0
    x.index_add_(0, i, torch.ones(4, 5).to(device))
    x.scatter_add_(1, i.view(1, 4).clamp(max=4), torch.ones(1, 4).to(device))
    x.index_put_((i[:1], i[:1]), torch.tensor(9.0).to(device), accumulate=True)
    return [*out, x]


def check_autograd(device):
    x = torch.randn(4, 5).to(device).requires_grad_()
    w = torch.randn(5, 3).to(device).requires_grad_()
    y = (x @ w).relu().pow(2).sum() + x[:, 1].exp().mean()
    y.backward()
    gradient, = torch.autograd.grad((w.sin() * w).sum(), w, create_graph=True)  # fmt: skip
    second, = torch.autograd.grad(gradient.sum(), w)  # fmt: skip
    seen = []
    z = w.mean(0)
    z.register_hook(lambda g: seen.append(g.sum().item()))
    z.sum().backward()
    return [y, x.grad, w.grad, gradient, second, seen]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


def check_own_autograd_function(device):
    x = torch.randn(9).to(device).requires_grad_()
    Cube.apply(x).sum().backward()
    return [x.grad]


def check_checkpoint(device):
    layer = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6)).to(device)
    out = []
    for reentrant in (False, True):
        x = torch.ones(3, 6).to(device).requires_grad_()
        y = checkpoint(layer, x, use_reentrant=reentrant)
        layer.zero_grad()
        y.square().sum().backward()
        out += [y, x.grad, *(p.grad.clone() for p in layer.parameters())]
    return out


def only_cuda_checkpoint_keeps_the_dropout(device):
    x = torch.ones(1000).cuda().requires_grad_()
    y = checkpoint(lambda v: torch.nn.functional.dropout(v, 0.5) * 2, x, use_reentrant=False)
    y.sum().backward()
    assert torch.equal(y.detach(), 2 * x.grad / 2)
    assert 300 < (x.grad == 0).sum().item() < 700


def check_deepcopy_state_dict_pickle(device):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).to(device)
    twin = copy.deepcopy(model)
    twin[0].weight.data.add_(1)
    other = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).to(device)
    other.load_state_dict(twin.state_dict())
    x = pickle.loads(pickle.dumps(model[0].weight))
    assert x.device == model[0].weight.device
    return [model.state_dict(), twin.state_dict(), other.state_dict(), x, copy.copy(x), copy.deepcopy(x[1:].detach())]


def check_save_and_load(device):
    """Both file formats; views that share a storage still share it afterwards."""
    out = []
    base = torch.arange(12.0).to(device)
    value = {"base": base, "view": base[3:7], "half": torch.randn(3).half().to(device), "n": 3}
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=new)
        for weights_only in (True, False):
            buffer.seek(0)
            back = torch.load(buffer, weights_only=weights_only)
            assert back["view"].device == base.device
            back["base"] += 1
            out.append(back)
        buffer.seek(0)
        out.append(torch.load(buffer, map_location="cpu"))
        assert out[-1]["base"].device.type == "cpu"
    return out


def check_save_and_load_an_optimizer(device):
    model = torch.nn.Linear(5, 5).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 5).to(device)).square().sum().backward()
        optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        state = torch.load(file)
    other = torch.nn.Linear(5, 5).to(device)
    other.load_state_dict(state["model"])
    again = torch.optim.AdamW(other.parameters(), lr=0.1)
    again.load_state_dict(state["optimizer"])
    again.zero_grad()
    other(torch.ones(2, 5).to(device)).square().sum().backward()
    again.step()
    return [other.state_dict(), [state for state in again.state_dict()["state"].values()]]


def check_storages(device):
    x = torch.arange(10, dtype=torch.uint8).to(device)
    storage = x.untyped_storage()
    assert storage.device.type == torch.device(device).type
    y = torch.empty(0, dtype=torch.uint8, device=device).set_(storage, 2, (3,))
    y += 100
    x.resize_(12)[10:] = 7
    return [x, y, list(x.untyped_storage().cpu())[:12], x.untyped_storage().nbytes(), len(storage), storage[3]]


def check_complex_and_fft(device):
    x = torch.randn(8, 6).to(device)
    f = torch.fft.rfft2(x)
    return [
        f.real.contiguous(),
        f.conj() * f,
        torch.fft.irfft2(f),
        f.mH @ f,
        f.resolve_conj(),
        torch.fft.fft(x).angle(),
    ]


def check_linear_algebra(device):
    a = torch.randn(5, 5).to(device)
    a = a @ a.T + 5 * torch.eye(5).to(device)
    return [
        torch.linalg.cholesky(a),
        torch.linalg.solve(a, a[0]),
        torch.linalg.det(a),
        torch.linalg.inv(a),
        torch.linalg.eigvalsh(a),
    ]


def check_pinned_memory(device):
    x = torch.randn(1000)
    pinned = x.pin_memory() if device.startswith("cuda") else x
    assert pinned.is_pinned() == device.startswith("cuda")
    y = pinned.to(device, non_blocking=True) * 2
    back = torch.empty(1000, pin_memory=device.startswith("cuda"))
    back.copy_(y, non_blocking=True)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return [y, back]


def check_copies_between_layouts(device):
    x = torch.randn(4, 6)
    y = torch.empty(6, 4, device=device).t()
    y.copy_(x)
    z = torch.zeros(4, 12).to(device)
    z[:, ::2] = x.to(device)
    z[:, 1::2].copy_(x)
    out = torch.empty(12, 4).t()
    out.copy_(z)
    half = torch.empty(4, 6, dtype=torch.half, device=device)
    half.copy_(x)
    channels_last = torch.randn(2, 3, 4, 4).to(device, memory_format=torch.channels_last)
    return [
        y,
        z,
        out,
        half,
        channels_last,
        channels_last.is_contiguous(memory_format=torch.channels_last),
        x.t().to(device).stride(),
    ]


def check_legacy_types(device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.ones(2, device=device)
        kind = torch.cuda.FloatTensor if device.startswith("cuda") else torch.FloatTensor
        return [isinstance(x, kind), x.type().replace("cuda.", ""), x.type(torch.float64), x.type_as(x.int())]
