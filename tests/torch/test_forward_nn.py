"""Modules, losses, autograd, optimizers and mixed precision: what a training program is made of, equal to the CPU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from compare import check, copied, same, same_bits, to_cuda
from torch import nn

X = lambda *shape: torch.randn(*shape, requires_grad=True)  # noqa: E731
GRAD = dict(grad=True)

CASES = {
    "linear": (lambda x, w, b: F.linear(x, w, b), lambda: (X(3, 4), X(5, 4), X(5))),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), lambda: (X(2, 3, 8), X(4, 3, 3), X(4))),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), lambda: (X(2, 3, 8, 8), X(4, 3, 3, 3), X(4))),
    "conv2d_groups": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), lambda: (X(2, 4, 9, 9), X(4, 2, 3, 3))),
    "conv3d": (lambda x, w: F.conv3d(x, w), lambda: (X(1, 2, 5, 5, 5), X(3, 2, 3, 3, 3))),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2), lambda: (X(2, 3, 4, 4), X(3, 2, 3, 3))),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), lambda: (X(2, 3, 8, 8),)),
    "max_pool2d_indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), lambda: (X(2, 3, 8, 8),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), lambda: (X(2, 3, 8, 8),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (1, 1)), lambda: (X(2, 3, 8, 8),)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 3), lambda: (X(2, 3, 8, 8),)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2), lambda: (X(2, 3, 4, 4),)),
    "interpolate_bilinear": (lambda x: F.interpolate(x, size=7, mode="bilinear"), lambda: (X(2, 3, 4, 4),)),
    "interpolate_bicubic": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"), lambda: (X(1, 2, 5, 5),)),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), lambda: (X(1, 2, 5, 5), X(1, 4, 4, 2))),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), lambda: (X(1, 8, 3, 3),)),
    "unfold": (lambda x: F.unfold(x, 3), lambda: (X(1, 2, 6, 6),)),
    "pad_reflect": (lambda x: F.pad(x, (1, 1, 2, 2), "reflect"), lambda: (X(1, 2, 6, 6),)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), lambda: (X(4, 3, 5), X(3), X(3))),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (5,), w, b), lambda: (X(4, 3, 5), X(5), X(5))),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), lambda: (X(3, 4, 5), X(4), X(4))),
    "instance_norm": (lambda x: F.instance_norm(x), lambda: (X(3, 4, 5),)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (5,), w), lambda: (X(3, 5), X(5))),
    "normalize": (lambda x: F.normalize(x), lambda: (X(3, 5),)),
    "embedding": (lambda w: F.embedding(torch.tensor([[1, 2], [0, 1]], device=w.device), w), lambda: (X(5, 3),)),
    "embedding_bag": (lambda w: F.embedding_bag(torch.tensor([[1, 2], [0, 1]], device=w.device), w), lambda: (X(5, 3),)),
    "softmax": (lambda x: F.softmax(x, 1) * x, lambda: (X(3, 5),)),
    "glu": (lambda x: F.glu(x), lambda: (X(3, 6),)),
    "prelu": (lambda x, w: F.prelu(x, w), lambda: (X(3, 6), X(1))),
    "dropout_eval": (lambda x: F.dropout(x, training=False), lambda: (X(3, 6),)),
    "mse": (F.mse_loss, lambda: (X(3, 4), X(3, 4))),
    "l1": (F.l1_loss, lambda: (X(3, 4), X(3, 4))),
    "smooth_l1": (F.smooth_l1_loss, lambda: (X(3, 4), torch.randn(3, 4))),
    "huber": (F.huber_loss, lambda: (X(3, 4), torch.randn(3, 4))),
    "bce": (lambda x, y: F.binary_cross_entropy(x.sigmoid(), y), lambda: (X(3, 4), torch.rand(3, 4))),
    "bce_logits": (lambda x, y: F.binary_cross_entropy_with_logits(x, y), lambda: (X(3, 4), torch.rand(3, 4))),
    "cross_entropy": (F.cross_entropy, lambda: (X(6, 4), torch.randint(0, 4, (6,)))),
    "cross_entropy_options": (
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1, ignore_index=1),
        lambda: (X(6, 4), torch.randint(0, 4, (6,))),
    ),
    "cross_entropy_2d": (F.cross_entropy, lambda: (X(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3)))),
    "nll": (lambda x, y: F.nll_loss(x.log_softmax(1), y, reduction="sum"), lambda: (X(6, 4), torch.randint(0, 4, (6,)))),
    "kl_div": (lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"), lambda: (X(3, 4), X(3, 4))),
    "hinge": (lambda x: F.hinge_embedding_loss(x, x.detach().sign()), lambda: (X(3, 4),)),
    "cosine_embedding": (
        lambda a, b: F.cosine_embedding_loss(a, b, torch.ones(3, device=a.device)),
        lambda: (X(3, 4), X(3, 4)),
    ),
    "triplet": (F.triplet_margin_loss, lambda: (X(3, 4), X(3, 4), X(3, 4))),
    "ctc": (
        lambda x: F.ctc_loss(x.log_softmax(2), torch.tensor([[1, 2], [2, 1]], device=x.device), (6, 6), (2, 2)),
        lambda: (X(6, 2, 4),),
    ),
    "attention": (
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda: (X(2, 2, 5, 4), X(2, 2, 5, 4), X(2, 2, 5, 4)),
    ),
    "complex_matmul": (
        lambda a, b: (a @ b.mH).abs(),
        lambda: (torch.randn(3, 4, dtype=torch.complex64, requires_grad=True), torch.randn(3, 4, dtype=torch.complex64, requires_grad=True)),
    ),
    "index_and_mask": (lambda x: (x[x > 0].sum(), x[[0, 2]], x.masked_fill(x < 0, 0.0)), lambda: (X(3, 4),)),
    "cumulative": (lambda x: (x.cumsum(0), x.cumprod(1), x.sort(1)[0], x.topk(2)[0]), lambda: (X(3, 4),)),
    "sgn": (lambda x: x.sgn() * x, lambda: (X(3, 4),)),
    "split_cat": (lambda x: torch.cat([t * i for i, t in enumerate(x.split(2, 1))], 1), lambda: (X(3, 6),)),
    "stack_where": (lambda x, y: torch.where(x > y, torch.stack([x, y]), y), lambda: (X(3, 4), X(3, 4))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_function_and_gradient(name):
    function, inputs = CASES[name]
    values = inputs()
    for _ in range(2):  # learned, then known
        check(function, *values, grad=True)


MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (5, 6)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)), (5, 1, 8, 8)),
    "norms": (lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.GELU(), nn.Linear(4, 3)), (5, 6)),
}  # fmt: skip


@pytest.mark.parametrize(
    "optimizer",
    [
        "SGD",
        "momentum",
        "Adam",
        "AdamW",
        "AdamW_fused",
        "Adam_loop",
        "SGD_fused",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "NAdam",
    ],
)
@pytest.mark.parametrize("model", MODULES)
def test_training(model, optimizer):
    make, shape = MODULES[model]
    make_optimizer = {
        "SGD": lambda p: torch.optim.SGD(p, 0.1), "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        "Adam": lambda p: torch.optim.Adam(p, 0.01, foreach=True), "AdamW": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
        "AdamW_fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True), "Adam_loop": lambda p: torch.optim.Adam(p, 0.01, foreach=False),
        "SGD_fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True), "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, foreach=True),
        "Adagrad": lambda p: torch.optim.Adagrad(p, 0.01, foreach=True), "Adadelta": lambda p: torch.optim.Adadelta(p, foreach=True),
        "NAdam": lambda p: torch.optim.NAdam(p, foreach=True),
    }[optimizer]  # fmt: skip
    here = make()
    there = copy.deepcopy(here).cuda()
    optimizers = [make_optimizer(here.parameters()), make_optimizer(there.parameters())]
    for _ in range(4):
        x, y = torch.randn(shape), torch.randint(0, 3, (shape[0],))
        losses = []
        for module, optim, device in zip((here, there), optimizers, ("cpu", "cuda")):
            optim.zero_grad()
            loss = F.cross_entropy(module(x.to(device)), y.to(device))
            loss.backward()
            optim.step()
            losses.append(loss.item())
        assert losses[0] == losses[1]
    for a, b in zip(here.state_dict().values(), there.state_dict().values()):
        same_bits(a, b)
    here.eval(), there.eval()
    same_bits(here(x), there(x.cuda()))


@pytest.mark.parametrize(
    "make", [lambda: nn.LSTM(4, 5, 2, batch_first=True), lambda: nn.GRU(4, 5, bidirectional=True), lambda: nn.RNN(4, 5)]
)
def test_recurrent(make):
    here = make()
    there = copy.deepcopy(here).cuda()
    x = torch.randn(3, 6, 4)
    with torch.backends.mkldnn.flags(enabled=False):  # cuda takes the cells one by one
        expected = here(x)
        expected[0].sum().backward()
    actual = there(x.cuda())
    actual[0].sum().backward()
    for a, b in zip(torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(actual)):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-6, atol=1e-6)
    for p, q in zip(here.parameters(), there.parameters()):
        torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-5, atol=1e-6)


def test_transformer_layer():
    here = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    there = copy.deepcopy(here).cuda()
    x = torch.randn(2, 5, 8)
    expected, actual = here(x), there(x.cuda())
    expected.sum().backward()
    actual.sum().backward()
    same_bits(expected, actual)
    for p, q in zip(here.parameters(), there.parameters()):
        same_bits(p.grad, q.grad)


def test_foreach():
    def program(a, b):
        added = torch._foreach_add(a, b, alpha=2)
        torch._foreach_mul_(a, 0.5)
        torch._foreach_addcdiv_(a, b, added, [0.1] * len(a))
        torch._foreach_sqrt_(torch._foreach_abs(a))
        return added, torch._foreach_norm(a), torch._foreach_neg(b), torch._foreach_maximum(a, b), a

    check(
        program,
        [torch.randn(3), torch.randn(2, 2), torch.randn(())],
        [torch.rand(3) + 1, torch.rand(2, 2) + 1, torch.rand(()) + 1],
    )


def test_foreach_lists_that_no_device_takes_whole():
    numbers = [torch.tensor(2.0), torch.tensor(-3.0)]
    check(lambda a: (torch._foreach_mul(a, numbers), torch._foreach_add_(a, numbers)), [torch.randn(3), torch.randn(2)])
    a, b = torch.randn(3), torch.randn(3)
    there, here = torch._foreach_add([a.cuda(), b], [b.cuda(), a])
    assert there.is_cuda and not here.is_cuda
    same_bits(a + b, there)
    same_bits(a + b, here)
    on_0, on_1 = torch._foreach_add([a.cuda(0), a.cuda(1)], 1.0)
    assert (on_0.device.index, on_1.device.index) == (0, 1)
    same_bits(a + 1, on_0)
    same_bits(a + 1, on_1)


def test_optimizer_with_its_rate_in_a_tensor():
    def program(weight):
        optimizer = torch.optim.Adagrad([weight], lr=torch.tensor(0.1), lr_decay=0.1, foreach=True)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        return weight.detach()

    check(program, torch.randn(4, requires_grad=True))
    many = [torch.randn(i % 5 + 1) for i in range(120)]
    check(lambda a: (torch._foreach_add(a, 1.0), torch._foreach_mul(a, a), torch._foreach_norm(a)), many)
    zeros = torch._foreach_zero_
    check(lambda a: (zeros(a), a)[1], many)


def test_foreach_of_nothing():
    for function in (lambda t: torch._foreach_norm([]), lambda t: torch._foreach_add([], 1.0)):
        for device in ("cpu", "cuda"):
            with pytest.raises((RuntimeError, IndexError)):
                function(device)
    empty = [torch.empty(0), torch.randn(2)]
    check(lambda a: torch._foreach_mul(a, 2.0), empty)


def test_clipping_and_schedules():
    here = nn.Linear(4, 3)
    there = copy.deepcopy(here).cuda()
    for module in (here, there):
        optimizer = torch.optim.AdamW(module.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        for step in range(4):
            optimizer.zero_grad()
            module(torch.arange(8.0).view(2, 4).to(module.weight.device) + step).square().sum().backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    for p, q in zip(here.parameters(), there.parameters()):
        same_bits(p, q)


def test_autocast_and_gradscaler():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).cuda()
    before = copied([p.cpu() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    x, y = torch.randn(5, 6), torch.randint(0, 3, (5,))
    with torch.autocast("cuda", torch.float16):
        out = model(x.cuda())
        assert out.dtype == torch.float16
        loss = F.cross_entropy(out, y.cuda())
    assert loss.dtype == torch.float32
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    # The same by hand on the CPU, with CUDA's casts.
    w1, b1, w2, b2 = before
    h = torch.addmm(b1.half(), x.half(), w1.half().t()).relu()
    # cross_entropy names its input's dtype to log_softmax, which therefore stays in half.
    here = F.nll_loss(torch.addmm(b2.half(), h, w2.half().t()).log_softmax(1).float(), y)
    (here * 8).backward()
    for p, q in zip(before, model.parameters()):
        same_bits(p.detach().add(p.grad / 8, alpha=-0.1), q)
    assert scaler.get_scale() == 8.0
    (torch.full((), float("inf"), device="cuda", requires_grad=True) * model[0].weight).sum().backward()
    weights = model[0].weight.detach().clone()
    scaler.scale(torch.ones((), device="cuda"))
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0 and torch.equal(weights, model[0].weight), "a step with inf gradients is skipped"


def test_checkpoint():
    from torch.utils.checkpoint import checkpoint

    here = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    there = copy.deepcopy(here).cuda()
    x = torch.randn(3, 4)
    for reentrant in (True, False):
        for module, value in ((here, x.clone().requires_grad_()), (there, x.cuda().requires_grad_())):
            checkpoint(module, value, use_reentrant=reentrant).sum().backward()
    for p, q in zip(here.parameters(), there.parameters()):
        same_bits(p.grad, q.grad)


def test_dropout_under_checkpoint_draws_the_same_twice():
    from torch.utils.checkpoint import checkpoint

    x = torch.ones(64, device="cuda", requires_grad=True)
    y = checkpoint(lambda t: F.dropout(t, 0.5), x, use_reentrant=False)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_higher_gradients_and_hooks():
    def program(x):
        y = (x**3).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), x)
        z = x * 2
        seen = []
        z.register_hook(lambda grad: seen.append(grad.sum().item()))
        z.sum().backward()
        return g.detach(), h, torch.tensor(seen, device=x.device)

    check(program, torch.randn(4, requires_grad=True))


def test_functional_transforms():
    from torch.func import grad, vmap

    check(lambda x, w: vmap(lambda row: (w * row).sum().sin())(x), torch.randn(4, 3), torch.randn(3))
    check(lambda x: vmap(grad(lambda row: row.square().sum()))(x), torch.randn(4, 3))


def test_inference_mode_and_no_grad():
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            check(lambda x, w: F.linear(x, w).relu_().add_(1), torch.randn(2, 3), torch.randn(4, 3))


def test_batch_norm_keeps_running_statistics():
    here, there = nn.BatchNorm2d(3), nn.BatchNorm2d(3).cuda()
    for _step in range(3):
        x = torch.randn(4, 3, 5, 5)
        same_bits(here(x), there(x.cuda()))
    here.eval(), there.eval()
    same_bits(here(x), there(x.cuda()))
    same(list(here.state_dict().values()), list(there.state_dict().values()))


def test_deterministic_algorithms_reach_the_worker():
    torch.use_deterministic_algorithms(True)
    try:
        check(lambda x: x.cumsum(0).index_add(0, torch.tensor([0, 0], device=x.device), x[:2]), torch.randn(3, 2))
        assert torch.empty(3, device="cuda").isnan().all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_devices_train_side_by_side():
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    results = []
    for device in ("cuda:0", "cuda:1"):
        mine = copy.deepcopy(model).to(device)
        mine(x.to(device)).sum().backward()
        results.append([p.grad for p in mine.parameters()])
    for a, b in zip(*results):
        same_bits(a.cpu(), b)
    assert to_cuda(x, "cuda:1").device.index == 1
