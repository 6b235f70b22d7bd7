"""Views, writes through them, out= and resizing, moves between host and device: storage and aliasing behave as on the CPU."""

import pytest
import torch
from compare import check, same_bits


def test_views_share_their_storage():
    def program(x):
        y = x.view(2, 12)
        y[0, 3:5] = 7
        x.t()[1].add_(1)
        x.narrow(1, 1, 2).mul_(2)
        x[::2].zero_()
        x.unfold(1, 2, 1)[0, 0, 1] = 9
        x.as_strided((2, 2), (1, 5), 3).fill_(4)
        x.diagonal().neg_()
        x.flatten()[-3:].copy_(torch.arange(3.0, device=x.device))
        x.unsqueeze(0).transpose(1, 2)[0, 1] -= 1
        return x, y, x.select(1, 2), x.expand(3, 4, 6)

    check(program, torch.randn(4, 6), strides=True)


def test_data_and_detach_write_through():
    def program(x):
        x.data.add_(1)
        x.detach()[0] = 5
        y = torch.empty(0, device=x.device).set_(x.storage(), 2, (2, 3), (3, 1))
        y.mul_(3)
        z = torch.empty(0, device=x.device).set_(x)
        z.sub_(1)
        assert z.data_ptr() == x.data_ptr() and y.data_ptr() == x.data_ptr() + 8 and z.is_set_to(x)
        return x, y

    check(program, torch.randn(3, 4))


def test_aliased_arguments():
    def program(x):
        x.add_(x)
        x[1:].copy_(x[:-1].clone())
        x.mul_(x.t().clone())
        torch.add(x, x, out=x)
        return torch.addmm(x, x, x), torch.cat([x, x[:1]]), torch.stack([x, x.t()])

    check(program, torch.randn(4, 4))


def test_out_is_resized_and_grows_its_storage():
    def program(a, b):
        out = torch.empty(0, device=a.device)
        torch.add(a, b, out=out)
        first = out.clone()
        torch.mm(a, b.t(), out=out.resize_(0))
        absolute = torch.empty(0, device=a.device)
        torch.abs(a, out=absolute)
        values, indices = torch.empty(0, device=a.device), torch.empty(0, dtype=torch.long, device=a.device)
        torch.max(a, 1, out=(values, indices))
        top = torch.topk(a, 2, out=(torch.empty(0, device=a.device), torch.empty(0, dtype=torch.long, device=a.device)))
        picked = torch.masked_select(a, a > 0, out=torch.empty(0, device=a.device))
        found = torch.nonzero(a > 0, out=torch.empty(0, dtype=torch.long, device=a.device))
        return out, first, absolute, values, indices, tuple(top), picked, found, torch.isfinite(a)

    for _ in range(2):  # the second time every plan is known
        check(program, torch.randn(3, 4), torch.randn(3, 4))


def test_out_into_a_view():
    def program(a, b):
        target = torch.zeros(6, 4, device=a.device)
        torch.mul(a, b, out=target[1:4])
        torch.sub(a, b, out=target.t()[:, 3:6].t())
        return target

    check(program, torch.randn(3, 4), torch.randn(3, 4))


def test_resize_keeps_what_fits():
    def program(x):
        x.resize_(2, 2)
        y = x.clone()
        x.resize_(4)
        x.add_(1)
        z = torch.ones(2, device=x.device)
        z.resize_(5)[2:] = 3
        return x, y, z

    check(program, torch.randn(4))


def test_storage_of_out_grows_under_a_view():
    def program(a):
        base = torch.zeros(2, device=a.device)
        view = base[1:1]
        return torch.add(a, 1, out=view), base

    check(program, torch.randn(3))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.uint8,
        torch.bool,
        torch.int64,
        torch.bfloat16,
        torch.complex64,
        torch.float8_e4m3fn,
        torch.uint16,
    ],
)
def test_bytes_come_back(dtype):
    x = torch.randint(0, 2, (3, 4, 5)).to(dtype)
    same_bits(x, x.cuda())
    same_bits(x.permute(2, 0, 1), x.cuda().permute(2, 0, 1))
    same_bits(x.permute(2, 0, 1), x.permute(2, 0, 1).cuda())
    same_bits(x[:, 1:3, ::2], x.cuda()[:, 1:3, ::2])
    same_bits(x[:, 1:3, ::2], x[:, 1:3, ::2].cuda())
    same_bits(x[1], x.cuda()[1].cpu().cuda())


def test_copies_convert_and_broadcast():
    for source in (torch.float64, torch.float32, torch.int64, torch.bool, torch.uint8):
        for target in (torch.float32, torch.int32, torch.bfloat16, torch.complex64):
            x = torch.randint(0, 5, (2, 3)).to(source)
            up = torch.zeros(4, 2, 3, dtype=target)
            same_bits(up.clone().copy_(x), up.cuda().copy_(x))
            same_bits(up.clone().copy_(x), up.clone().copy_(x.cuda()).cuda())
            same_bits(x.to(target), x.cuda().to(target))
            same_bits(x.to(target), x.to("cuda", target))
            same_bits(x.to(target), x.cuda().to("cpu", target).cuda())


def test_copies_into_every_layout():
    x = torch.randn(2, 3, 4, 5)
    for layout in (
        lambda t: t,
        lambda t: t.transpose(0, 2),
        lambda t: t[:, ::2],
        lambda t: t.to(memory_format=torch.channels_last),
    ):
        target, source = layout(torch.zeros(2, 3, 4, 5)), layout(x)
        there = to_layout = layout(torch.zeros(2, 3, 4, 5, device="cuda"))
        to_layout.copy_(source)
        same_bits(target.copy_(source), there)
        back = layout(torch.zeros(2, 3, 4, 5))
        back.copy_(there)
        same_bits(back, there)
        assert torch.equal(back, source)


def test_pinned_and_non_blocking():
    x = torch.randn(64).pin_memory()
    assert x.is_pinned()
    y = x.to("cuda", non_blocking=True)
    x.zero_()
    assert y.abs().sum().item() > 0, "the bytes were taken before the program could change them"
    back = torch.empty(64, pin_memory=True)
    back.copy_(y, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(back, y.cpu())


def test_between_devices():
    x = torch.randn(3, 4)
    there = x.to("cuda:0").mul(2).to("cuda:1")
    assert there.device == torch.device("cuda:1") and torch.equal(there.cpu(), x * 2)
    there.add_(1)
    back = there.t().to("cuda:0")
    back.mul_(3)
    assert torch.equal(back.cpu(), (x * 2 + 1).t() * 3) and torch.equal(there.cpu(), x * 2 + 1)
    target = torch.zeros(4, 3, dtype=torch.float64, device="cuda:1")
    target.copy_(back)
    assert torch.equal(target.cpu(), ((x * 2 + 1).t() * 3).double())


def test_numbers_and_lists():
    x = torch.tensor([[1.5, -2.0], [0.25, 4.0]])
    y = x.cuda()
    assert y[1, 1].item() == 4.0 and y.tolist() == x.tolist() and float(y[0, 0]) == 1.5 and bool((y > 3).any())
    assert int(torch.tensor(7, device="cuda")) == 7 and torch.tensor(True, device="cuda").item() is True
    assert torch.tensor(1 + 2j, device="cuda").item() == 1 + 2j
    assert y.cpu().numpy().tolist() == x.numpy().tolist()
    assert repr(y) == repr(x)[:-1] + ", device='cuda:0')"


@pytest.mark.parametrize("make", [
    lambda d: torch.zeros(2, 3, device=d), lambda d: torch.ones(4, device=d, dtype=torch.int64),
    lambda d: torch.full((2, 2), 3.5, device=d), lambda d: torch.arange(10, device=d), lambda d: torch.arange(0, 1, 0.1, device=d),
    lambda d: torch.linspace(0, 1, 7, device=d), lambda d: torch.eye(4, device=d), lambda d: torch.tril_indices(3, 3, device=d),
    lambda d: torch.logspace(0, 2, 5, device=d), lambda d: torch.hann_window(8, device=d), lambda d: torch.scalar_tensor(2.0, device=d),
    lambda d: torch.zeros_like(torch.ones(2, 3, device=d).t()), lambda d: torch.ones(3, device=d).new_full((2,), 5),
    lambda d: torch.tensor([1, 2, 3], device=d), lambda d: torch.zeros((), device=d), lambda d: torch.triu_indices(4, 3, device=d),
    lambda d: torch.empty_strided((2, 3), (1, 2), device=d).fill_(1), lambda d: torch.vander(torch.arange(1.0, 4, device=d)),
])  # fmt: skip
def test_factories(make):
    same_bits(make("cpu"), make("cuda"), strides=True)


@pytest.mark.parametrize("function", [
    lambda x: x.t(), lambda x: x.reshape(-1), lambda x: x.view(2, 2, 6), lambda x: x.flip(0), lambda x: x.roll(1, 1),
    lambda x: x.repeat(2, 1), lambda x: x.tile(3), lambda x: x.split(2, 1), lambda x: x.chunk(3, 0), lambda x: x.unbind(),
    lambda x: torch.stack([x, x], 1), lambda x: torch.cat([x, x, x[:1]]), lambda x: x.movedim(0, 1), lambda x: x.rot90(),
    lambda x: x.contiguous(), lambda x: x.t().contiguous(), lambda x: x.tril(), lambda x: x.triu(1), lambda x: x.diag(),
    lambda x: x.repeat_interleave(2, 0), lambda x: x.clone(), lambda x: torch.nn.functional.pad(x, (1, 2)),
    lambda x: torch.meshgrid(x[0], x[:, 0], indexing="ij"), lambda x: x.expand(2, -1, -1).sum(0), lambda x: x.swapaxes(0, 1) + 1,
    lambda x: torch.broadcast_tensors(x, x[0]), lambda x: torch.hstack([x, x]), lambda x: torch.block_diag(x, x),
    lambda x: torch.combinations(x[0]), lambda x: x.unflatten(1, (2, 3)), lambda x: torch.nn.functional.one_hot(x.long() % 3 + 3),
    lambda x: x.fill_diagonal_(2), lambda x: torch.kron(x, x[:2]), lambda x: torch.column_stack([x, x]),
])  # fmt: skip
def test_shapes(function):
    check(function, torch.arange(24.0).reshape(4, 6) - 5, strides=True)


def test_channels_last():
    def program(x, w):
        x = x.to(memory_format=torch.channels_last)
        y = torch.nn.functional.conv2d(x, w, padding=1)
        z = torch.nn.functional.max_pool2d(y.relu(), 2)
        return y, z, y + 1, y.contiguous(), torch.empty_like(y).fill_(0)

    check(program, torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), strides=True)


def test_indices_without_dimensions_on_the_cpu():
    def program(x):
        x.index_put_([torch.tensor(1)], torch.tensor(7.0))
        return torch.ops.aten.index(x, [torch.tensor(2)]), torch.ops.aten.index(x, [None, torch.tensor(0)]), x

    check(program, torch.randn(3, 4))
