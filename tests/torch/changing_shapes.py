"""Programs of a size n, for test_changing_shapes.py: each uses its operators at sizes that follow from n.

What a program makes does not matter here; that values are right is the business of the other tests.
"""

import torch
import torch.nn.functional as F
from torch import nn

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def noise(*sizes):
    return torch.randn(*sizes).cuda()


def leaf(*sizes):
    return noise(*sizes).requires_grad_()


def integers(high, *sizes):
    return torch.randint(high, sizes).cuda()


def back(*results):
    for y in results:
        y.square().mean().backward()


def layers(**modules):
    """The modules of a program, made at its first use."""
    return nn.ModuleDict({name: module.cuda() for name, module in modules.items()})


_made = {}


def made(name, **modules):
    if name not in _made:
        _made[name] = layers(**{key: make() for key, make in modules.items()})
    return _made[name]


@program
def batch_norms(n):
    m = made("bn", one=lambda: nn.BatchNorm1d(6), two=lambda: nn.BatchNorm2d(3)).train()
    back(m["one"](leaf(n, 6)), m["two"](leaf(n, 3, n + 2, 5)))
    m.eval()
    back(m["one"](leaf(n, 6)), m["two"](leaf(n, 3, n + 2, 5)))


@program
def other_norms(n):
    m = made("norms", group=lambda: nn.GroupNorm(2, 4), instance=lambda: nn.InstanceNorm1d(4), rms=lambda: nn.RMSNorm(8), layer=lambda: nn.LayerNorm(8))  # fmt: skip
    back(m["group"](leaf(n, 4, 5)), m["group"](leaf(2, 4, n, n)), m["instance"](leaf(2, 4, n)))
    back(m["rms"](leaf(2, n, 8)), m["layer"](leaf(2, n, 8)))


@program
def embedding_bags(n):
    for mode in ("sum", "mean", "max"):
        bag = made(f"bag {mode}", bag=lambda: nn.EmbeddingBag(30, 8, mode=mode))["bag"]  # noqa: B023
        back(bag(integers(30, 2, n)), bag(integers(30, 3 * n), torch.tensor([0, 2, n]).cuda()))


@program
def recurrent(n):
    kinds = {
        kind: lambda k=kind: getattr(nn, k)(8, 8, 2, batch_first=True, bidirectional=True)
        for kind in ("LSTM", "GRU", "RNN")
    }
    for module in made("recurrent", **kinds).values():
        back(module(leaf(2, n, 8))[0], module(leaf(n, 3, 8))[0])
        packed = nn.utils.rnn.pack_sequence([leaf(n + 2, 8), leaf(n, 8), leaf(2, 8)])
        back(nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)[0])


@program
def convolutions(n):
    m = made("conv", one=lambda: nn.Conv1d(4, 6, 3, padding=1), up=lambda: nn.ConvTranspose1d(4, 6, 3), two=lambda: nn.Conv2d(3, 4, 3), three=lambda: nn.Conv3d(2, 3, 2))  # fmt: skip
    back(m["one"](leaf(2, 4, n + 3)), m["up"](leaf(2, 4, n + 3)))
    back(m["two"](leaf(2, 3, n + 3, n + 4)), m["three"](leaf(1, 2, n + 2, 5, 4)))


@program
def attention(n):
    m = made(
        "attention",
        mha=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        encoder=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        decoder=lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True),
    ).train()
    x, q = leaf(2, n, 8), [leaf(2, 2, n, 4) for _ in range(3)]
    padding = (torch.arange(n) > n - 2).expand(2, n).cuda()
    causal = nn.Transformer.generate_square_subsequent_mask(n, device="cuda")
    back(m["mha"](x, x, x)[0], m["encoder"](x, src_key_padding_mask=padding))
    back(m["decoder"](leaf(2, n, 8), leaf(2, n + 1, 8), tgt_mask=causal))
    back(F.scaled_dot_product_attention(*q, is_causal=True), F.scaled_dot_product_attention(*q, attn_mask=causal == 0))
    m.eval()
    with torch.no_grad():
        m["encoder"](noise(2, n, 8))


@program
def losses(n):
    x, y, other = leaf(n, 5), integers(5, n), torch.rand(n, 5).cuda()
    total = (
        F.cross_entropy(x, y)
        + F.cross_entropy(x, y, label_smoothing=0.1)
        + F.nll_loss(x.log_softmax(1), y, ignore_index=1)
    )
    total += F.binary_cross_entropy_with_logits(x, other) + F.binary_cross_entropy(x.sigmoid(), other)
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        total += loss(x, other)
    total += F.kl_div(x.log_softmax(1), other, reduction="batchmean") + F.multi_margin_loss(x, y)
    total += F.cosine_similarity(x, other).sum() + F.triplet_margin_loss(x, other, other + 1)
    total += F.cross_entropy(leaf(2, 5, n), integers(5, 2, n))
    total.backward()
    lengths = torch.tensor([n + 8, n + 6]), torch.tensor([n, n - 1])
    F.ctc_loss(leaf(n + 8, 2, 5).log_softmax(-1), torch.randint(1, 5, (2, n)).cuda(), *lengths).backward()


@program
def arranging(n):
    x = leaf(n, 6)
    back(
        torch.cat([x, x[:1]]),
        torch.stack([x, x], 1),
        F.pad(x, (1, 2)),
        x.flip(0),
        x.roll(1, 0),
        x.repeat(2, 1),
        x.tril(),
        x[::2],
    )
    back(
        x.repeat_interleave(2, 0),
        x.unfold(0, 2, 1),
        x.split(2)[0],
        x.t().contiguous(),
        torch.diff(x, dim=0),
        x.roll((1, 2), (0, 1)),
    )
    back(F.pad(x[None], (1, 1), mode="reflect"), F.pad(x[None], (1, 1), mode="replicate"), torch.block_diag(x, x))
    F.one_hot(integers(4, n), 4)
    torch.meshgrid(x[:, 0], x[:, 0], indexing="ij")
    for make in (torch.eye, torch.arange, torch.ones, torch.randperm):
        make(n, device="cuda")
    torch.tril_indices(n, n + 1, device="cuda"), torch.triu_indices(n, n + 1, 1, device="cuda")
    torch.linspace(0, 1, n, device="cuda"), torch.full((n,), 2.0, device="cuda")


@program
def indexing(n):
    x, z, rows, picked = leaf(n, 6), noise(n, 6), integers(n, 4), integers(n, 3, 6)
    back(x[rows], x.index_select(0, rows), x.gather(0, picked), x[:, None] * 1, x.scatter(0, picked, 1.0))
    back(torch.where(x > 0, x, -x), torch.where(x.t() > 0, x.t(), x.t() * 2), torch.where(x > 0, x, 0.0))
    back(
        x.masked_fill(z > 0, 0.0),
        x.masked_scatter(z > 0, noise(n, 6)),
        F.embedding(rows, x),
        F.embedding(rows, x, padding_idx=0),
    )
    z[rows] = 1.0
    z[z > 0] = 2.0
    z.index_add_(0, rows, noise(4, 6)).scatter_(0, picked, 1.0).scatter_add_(0, picked, noise(3, 6))
    z.index_put_((rows,), noise(6), accumulate=True).masked_fill_(z > 0, 1.0).index_fill_(0, rows, 2.0)
    z.index_copy_(0, torch.arange(n).cuda(), noise(n, 6)).scatter_reduce_(0, picked, noise(3, 6), "amax").put_(
        rows, noise(4)
    )
    z.take(rows), torch.bucketize(z, noise(5).sort()[0]), torch.searchsorted(noise(n).sort()[0], z)


REDUCTIONS = (
    *(lambda x, name=name: getattr(x, name)() for name in ("max", "min", "mean", "sum", "var", "std", "norm", "median")),
    *(lambda x, name=name: getattr(x, name)(0) for name in ("amax", "sum", "mean", "var", "std", "logsumexp", "cumsum", "cumprod", "prod",
                                                           "softmax", "log_softmax", "logcumsumexp", "nanmean", "nansum")),
    *(lambda x, name=name: getattr(x, name)(0)[0] for name in ("max", "min", "median", "sort", "cummax", "mode")),
    lambda x: x.topk(2, 0)[0],
    lambda x: x.kthvalue(2, 0)[0],
    lambda x: x.quantile(0.5, 0),
    lambda x: torch.var_mean(x, 0)[0],
    lambda x: x.aminmax()[0],
    F.normalize,
    lambda x: torch.linalg.vector_norm(x, dim=1),
    lambda x: torch.renorm(x, 2, 0, 1.0),
)  # fmt: skip


@program
def reductions(n):
    x = leaf(n, 6)
    back(*(reduction(x) for reduction in REDUCTIONS))
    (
        x.detach().prod(),
        x.argmax(0),
        x.argmin(),
        x.argsort(0),
        (x > 0).any(),
        (x > 0).all(0),
        x.count_nonzero(),
        x.isnan().any(),
    )
    x.detach().histc(5)


@program
def products(n):
    x, eye = leaf(n, 6), torch.eye(n, device="cuda")
    back(
        x @ x.t(),
        torch.bmm(leaf(2, n, 3), leaf(2, 3, 4)),
        torch.baddbmm(noise(2, n, 4), leaf(2, n, 3), leaf(2, 3, 4)),
        x.mv(noise(6)),
    )
    back(
        torch.einsum("ij,kj->ik", x, x), torch.cdist(x, noise(3, 6)), F.bilinear(leaf(n, 3), leaf(n, 4), noise(2, 3, 4))
    )
    back(
        torch.addmm(noise(n, 4), x, noise(6, 4)),
        x[:, 0].dot(x[:, 1]),
        torch.outer(x[:, 0], x[:, 1]),
        torch.kron(x, noise(2, 2)),
    )
    back(torch.linalg.inv(5 * eye + leaf(n, n)), torch.linalg.matrix_norm(x), torch.linalg.solve(eye, x))
    torch.linalg.svdvals(x), torch.linalg.cholesky(eye), torch.linalg.det(eye), torch.linalg.eigh(eye)


@program
def pictures(n):
    x = leaf(2, 3, n + 4, n + 5)
    back(
        F.max_pool2d(x, 2),
        F.avg_pool2d(x, 2),
        F.adaptive_avg_pool2d(x, 2),
        F.adaptive_avg_pool2d(x, 1),
        F.adaptive_max_pool2d(x, 2),
    )
    back(
        F.max_pool1d(x[0], 2),
        F.avg_pool1d(x[0], 2),
        F.lp_pool2d(x, 2, 2),
        F.adaptive_avg_pool1d(x[0], 2),
        F.unfold(x, 2),
    )
    back(
        F.interpolate(x, scale_factor=2),
        F.interpolate(x, size=(n, n), mode="bilinear"),
        F.interpolate(x, size=(n, n), mode="bicubic"),
    )
    back(F.grid_sample(x, torch.rand(2, n, n, 2).cuda(), align_corners=False), F.pixel_unshuffle(x[..., :4, :4], 2))


@program
def pictures_channels_last(n):
    m = made("channels_last", norm=lambda: nn.BatchNorm2d(3), conv=lambda: nn.Conv2d(3, 4, 3)).train()
    x = leaf(2, 3, n + 3, n + 4).to(memory_format=torch.channels_last)
    back(
        F.max_pool2d(F.relu(m["conv"](m["norm"](x))), 2),
        F.interpolate(x, scale_factor=2),
        F.avg_pool2d(x, 2),
        torch.cat([x, x], 1),
    )
    back(F.adaptive_avg_pool2d(x, 1), F.dropout(x, 0.5), x + x.mean(1, keepdim=True), torch.where(x > 0, x, -x))


POINTWISE = (F.relu, F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus, F.hardswish, F.mish, F.logsigmoid, F.selu, F.glu, F.hardtanh, F.softsign,
             F.relu6, F.hardsigmoid, F.celu, torch.sigmoid, torch.tanh, torch.exp, torch.erf, torch.nan_to_num, torch.square, F.rrelu,
             F.dropout, F.alpha_dropout, F.gumbel_softmax, F.dropout1d)  # fmt: skip


@program
def elements(n):
    x, y = leaf(n, 6), noise(n, 1)
    back(*(function(x) for function in POINTWISE), F.dropout(x.t()), F.prelu(x, noise(1)), F.threshold(x, 0.0, 1.0))
    back(
        x.clamp(0, 1),
        x.clamp(min=0),
        x.abs().sqrt(),
        x**2,
        torch.lerp(x, y, 0.3),
        torch.addcmul(x, y, x),
        torch.maximum(x, y),
    )
    back(
        x.half().float(),
        x.fmod(2),
        torch.atan2(x, y),
        torch.logaddexp(x, y),
        torch.complex(x, x).abs(),
        torch.polar(x.abs(), x).abs(),
    )
    x.isfinite(), x.isinf(), x.isclose(x), x > y, (x > 0) & (y > 0), torch.logical_or(x > 0, y > 0), ~(x > 0)


@program
def random_numbers(n):
    for draw in (torch.rand, torch.randn, torch.randperm):
        draw(n, device="cuda")
    torch.randint(5, (n,), device="cuda"), torch.rand_like(noise(n))
    noise(n, 5).abs().multinomial(1), noise(n, 5).abs().multinomial(3)
    torch.bernoulli(noise(n).sigmoid()), torch.normal(noise(n), 1.0), torch.poisson(noise(n).abs())
    torch.empty(n, device="cuda").uniform_(), torch.empty(n, device="cuda").exponential_()
    torch.distributions.Categorical(logits=noise(n, 4)).sample()
    torch.distributions.Gamma(noise(n).abs() + 0.1, torch.ones(n).cuda()).sample()
    torch.distributions.Dirichlet(noise(n, 3).abs() + 0.1).sample()


@program
def signals(n):
    back(
        torch.fft.rfft(leaf(2, n)).abs(),
        torch.fft.ifft(leaf(2, n)).abs(),
        torch.fft.irfft(torch.complex(leaf(2, n), leaf(2, n))),
    )
    torch.stft(noise(2, 64 + n), 16, return_complex=True, window=torch.ones(16, device="cuda")).abs()


@program
def half_precision(n):
    m = made(
        "half", encoder=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), head=lambda: nn.Linear(8, 5), norm=lambda: nn.BatchNorm1d(5)
    )  # fmt: skip
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype):
            logits = m["head"](m["encoder"](leaf(2, n, 8))).view(-1, 5)
            back(F.cross_entropy(logits, integers(5, 2 * n)), m["norm"](m["head"](leaf(n, 8))).float())


@program
def optimizing(n):
    parameters = [leaf(n, 3).detach().requires_grad_() for _ in range(3)]
    optimizers = [torch.optim.SGD(parameters, 0.1, momentum=0.9), torch.optim.Adam(parameters, 0.1, capturable=True)]
    optimizers += [torch.optim.AdamW(parameters, 0.1, **how) for how in ({}, {"fused": True}, {"amsgrad": True})]
    for optimizer in optimizers:
        for p in parameters:
            p.grad = torch.ones_like(p)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
