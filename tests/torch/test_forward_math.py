"""Products, reductions, sorting, indexing, linear algebra and what depends on values: equal to the CPU."""

import pytest
import torch
from compare import both_fail, check, same_bits

REDUCTIONS = [
    lambda x: x.sum(), lambda x: x.sum(1), lambda x: x.sum((0, 2), keepdim=True), lambda x: x.mean(), lambda x: x.mean(-1),
    lambda x: x.prod(), lambda x: x.prod(0), lambda x: x.std(), lambda x: x.std(1), lambda x: x.var((0, 1)), lambda x: x.max(),
    lambda x: x.max(1), lambda x: x.min(0), lambda x: x.amax((0, 2)), lambda x: x.amin(1), lambda x: x.aminmax(),
    lambda x: x.argmax(), lambda x: x.argmax(1), lambda x: x.argmin(2, keepdim=True), lambda x: x.norm(), lambda x: x.norm(1, 1),
    lambda x: x.norm(float("inf")), lambda x: x.logsumexp(1), lambda x: x.softmax(-1), lambda x: x.log_softmax(0),
    lambda x: x.cumsum(1), lambda x: x.cumprod(0), lambda x: x.cummax(1), lambda x: x.cummin(0), lambda x: x.logcumsumexp(2),
    lambda x: x.median(), lambda x: x.median(1), lambda x: x.nanmedian(), lambda x: x.mode(1), lambda x: x.kthvalue(2, 1),
    lambda x: (x > 0).any(), lambda x: (x > 0).all(1), lambda x: (x > -9).all((0, 1)), lambda x: x.nansum(), lambda x: x.count_nonzero(),
    lambda x: x.count_nonzero(1), lambda x: torch.var_mean(x, 1), lambda x: x.quantile(0.3), lambda x: x.sum(dtype=torch.float64),
    lambda x: torch.linalg.vector_norm(x, 3), lambda x: x.diff(dim=1), lambda x: torch.trapezoid(x), lambda x: x.renorm(2, 0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize("function", REDUCTIONS)
def test_reductions(function):
    check(function, torch.randn(3, 5, 4), strides=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_reductions_of_integers(dtype):
    x = torch.randint(0, 7, (4, 6)).to(dtype)
    check(lambda x: (x.sum(), x.sum(1), x.prod(), x.cumsum(0), x.float().mean()), x)
    if dtype != torch.bool:
        check(lambda x: (x.max(), x.argmax(1), x.min(0), x.sort(1), x.unique(), x.bincount() if x.dim() == 1 else x), x)


PRODUCTS = [
    (lambda a, b: a @ b, (3, 4), (4, 5)), (lambda a, b: torch.mm(a, b), (3, 4), (4, 5)), (lambda a, b: a.matmul(b), (2, 3, 4), (2, 4, 5)),
    (lambda a, b: a @ b, (2, 3, 4), (4, 5)), (lambda a, b: a @ b, (4,), (4, 5)), (lambda a, b: a @ b, (3, 4), (4,)), (lambda a, b: a @ b, (4,), (4,)),
    (lambda a, b: torch.bmm(a, b), (2, 3, 4), (2, 4, 5)), (lambda a, b: torch.dot(a, b), (6,), (6,)), (lambda a, b: torch.outer(a, b), (3,), (4,)),
    (lambda a, b: torch.einsum("bij,bkj->bik", a, b), (2, 3, 4), (2, 5, 4)), (lambda a, b: torch.tensordot(a, b, 1), (3, 4), (4, 5)),
    (lambda a, b: a.t() @ b, (4, 3), (4, 5)), (lambda a, b: torch.nn.functional.linear(a, b), (2, 3, 4), (5, 4)),
    (lambda a, b: torch.addmm(b, a, a.t()), (3, 4), (3, 3)), (lambda a, b: torch.addmm(b, a, a.t(), beta=0.5, alpha=2), (3, 4), (3,)),
    (lambda a, b: torch.baddbmm(b, a, a.mT), (2, 3, 4), (2, 3, 3)), (lambda a, b: torch.addmv(b, a, a[0]), (3, 4), (3,)),
    (lambda a, b: torch.cdist(a, b), (5, 3), (4, 3)), (lambda a, b: torch.nn.functional.cosine_similarity(a, b), (3, 4), (3, 4)),
    (lambda a, b: torch.nn.functional.bilinear(a, a, b), (3, 4), (2, 4, 4)), (lambda a, b: torch.chain_matmul(a, b, a), (3, 4), (4, 3)),
]  # fmt: skip


@pytest.mark.parametrize("function, left, right", PRODUCTS)
def test_products_and_their_gradients(function, left, right):
    check(function, torch.randn(left, requires_grad=True), torch.randn(right, requires_grad=True), grad=True)


INDEXING = [
    lambda x, i: x[1], lambda x, i: x[-1, 2:], lambda x, i: x[:, ::2], lambda x, i: x[..., None, 0], lambda x, i: x[i],
    lambda x, i: x[i, i], lambda x, i: x[:, i], lambda x, i: x[i.unsqueeze(1), i], lambda x, i: x[[0, 2]], lambda x, i: x[x > 0],
    lambda x, i: x[(x > 0).any(1)], lambda x, i: x[:, x[0] > -9], lambda x, i: x.index_select(1, i), lambda x, i: x.take(i),
    lambda x, i: x.gather(0, i.expand(2, 3)), lambda x, i: x.masked_select(x < 0), lambda x, i: x.nonzero(),
    lambda x, i: torch.where(x > 0), lambda x, i: x.argwhere(), lambda x, i: x.take_along_dim(x.argsort(1), 1),
    lambda x, i: x.masked_fill(x > 0, 0.5), lambda x, i: x.masked_fill(x > 0, x.sum()), lambda x, i: x.index_fill(0, i, 1.0),
    lambda x, i: x.scatter(1, i.expand(4, 3), 2.0), lambda x, i: x.scatter(0, i.expand(2, 3), x), lambda x, i: x.scatter_add(0, i.expand(2, 3), x),
    lambda x, i: x.scatter_reduce(1, i.expand(4, 3), x, "amax"), lambda x, i: x.index_add(0, i, x[:3]), lambda x, i: x.index_copy(0, i, x[1:]),
    lambda x, i: x.index_put((i,), x[0]), lambda x, i: x.index_put((i, i), x[0, 0], accumulate=True), lambda x, i: x.masked_scatter(x > 0, x.t().reshape(-1)),
    lambda x, i: x.sort(1), lambda x, i: x.sort(stable=True, dim=0, descending=True), lambda x, i: x.argsort(), lambda x, i: x.topk(2),
    lambda x, i: x.unique(), lambda x, i: i.unique(return_inverse=True, return_counts=True), lambda x, i: i.unique_consecutive(),
    lambda x, i: x.unique(dim=0), lambda x, i: i.bincount(), lambda x, i: x.histc(4), lambda x, i: torch.searchsorted(x.sort(1)[0], x),
    lambda x, i: torch.bucketize(x, x[0].sort()[0]), lambda x, i: i.repeat_interleave(i + 1), lambda x, i: torch.isin(i, i[:1]),
    lambda x, i: x.diagonal_scatter(x[0]), lambda x, i: x.select_scatter(x[0], 0, 1), lambda x, i: x.slice_scatter(x[:2], 0, 1, 3),
    lambda x, i: torch.cartesian_prod(i, i), lambda x, i: torch.tensor_split(x, 3), lambda x, i: x.put(i, x[0, :3]),
]  # fmt: skip


@pytest.mark.parametrize("function", INDEXING)
def test_indexing(function):
    for _ in range(2):
        check(function, torch.randn(4, 4), torch.tensor([2, 0, 1]))


def test_writes_through_an_index():
    def program(x, i, m):
        x[0] = 5
        x[i] = -1.0
        x[:, i] += 1
        x[m] = 2
        x[m] *= 3
        x[x > 4] = x[0, 0]
        x[1, :2] = torch.tensor([7.0, 8.0], device=x.device)
        x[i, i] = torch.arange(3.0, device=x.device)
        x.index_put_((i,), x[0] + 1, accumulate=True)
        x.masked_fill_(m, 9).scatter_(0, i.expand(2, 3), 1.5)
        return x

    for _ in range(2):
        check(program, torch.randn(4, 4), torch.tensor([2, 0, 1]), torch.rand(4, 4) > 0.5)


def test_indices_on_the_cpu():
    x, i, m = torch.randn(4, 4), torch.tensor([2, 0, 1]), torch.rand(4, 4) > 0.5
    y = x.cuda()
    same_bits(x[i], y[i])
    same_bits(x[i, i], y[i, i.cuda()])
    same_bits(x[m], y[m])
    same_bits(x[m[0]], y[m[0]])
    y[i] = 3
    y[m] = 4
    x[i] = 3
    x[m] = 4
    same_bits(x, y)


def test_masks_are_looked_at_every_time():
    for k in range(5):
        x = torch.arange(6.0)
        assert x.cuda()[x.cuda() > k].tolist() == x[x > k].tolist()
        assert torch.equal(x.cuda().nonzero().cpu(), x.nonzero())
        assert torch.equal(torch.full((3,), k, device="cuda").bincount().cpu(), torch.full((3,), k).bincount())


def test_equal_is_a_value():
    x = torch.randn(3).cuda()
    assert torch.equal(x, x.clone()) and not torch.equal(x, x + 1) and torch.allclose(x, x + 1e-9)


LINALG = [
    lambda x: torch.linalg.inv(x), lambda x: torch.linalg.det(x), lambda x: torch.linalg.slogdet(x), lambda x: torch.linalg.solve(x, x[:, :2]),
    lambda x: torch.linalg.cholesky(x), lambda x: torch.linalg.eigvalsh(x), lambda x: torch.linalg.svdvals(x), lambda x: torch.linalg.qr(x),
    lambda x: torch.linalg.lu(x), lambda x: torch.linalg.matrix_power(x, 3), lambda x: torch.linalg.pinv(x), lambda x: torch.linalg.matrix_rank(x),
    lambda x: torch.linalg.norm(x), lambda x: torch.linalg.lstsq(x, x, driver="gels").solution, lambda x: torch.linalg.eigh(x), lambda x: torch.triangular_solve(x, x.triu()),
    lambda x: torch.linalg.matrix_exp(x / 9), lambda x: torch.trace(x), lambda x: torch.cov(x), lambda x: torch.corrcoef(x),
    lambda x: torch.fft.rfft(x), lambda x: torch.fft.fft2(x), lambda x: torch.fft.irfft(torch.fft.rfft(x)), lambda x: torch.stft(x[0], 4, window=x[1], return_complex=True),
]  # fmt: skip


@pytest.mark.parametrize("function", LINALG)
def test_linear_algebra_and_fft(function):
    x = torch.randn(4, 4)
    check(function, x @ x.t() + 4 * torch.eye(4))


def test_failures_have_the_cpus_class():
    both_fail(lambda x: torch.linalg.cholesky(-x), torch.eye(3), error=torch.linalg.LinAlgError)
    both_fail(lambda x: torch.linalg.inv(x), torch.zeros(3, 3), error=torch.linalg.LinAlgError)
    both_fail(lambda x: x[torch.tensor([5], device=x.device)], torch.ones(3), error=IndexError)
    both_fail(lambda a, b: a @ b, torch.ones(2, 3), torch.ones(2, 3))
    both_fail(lambda x: x.view(5), torch.ones(2, 3))
    both_fail(lambda x: x.sum(3), torch.ones(2, 3), error=IndexError)
    both_fail(lambda x: torch.cat([x, x[:, :2]]), torch.ones(2, 3))
    both_fail(
        lambda x, i: torch.nn.functional.nll_loss(x, i),
        torch.ones(2, 3),
        torch.tensor([0, 7]),
        error=(IndexError, RuntimeError),
    )


def test_what_was_computed_before_a_failure_stays():
    x = torch.ones(3, device="cuda")
    y = x * 2
    with pytest.raises(IndexError):
        x.index_add_(0, torch.tensor([9], device="cuda"), y[:1])
        torch.cuda.synchronize()
    x += 1
    assert x.tolist() == [2, 2, 2] and y.tolist() == [2, 2, 2]


def test_random_numbers_follow_the_seed():
    def draw():
        return [torch.rand(5, device="cuda"), torch.randn(3, 2, device="cuda"), torch.randint(0, 9, (4,), device="cuda"),
                torch.randperm(7, device="cuda"), torch.empty(3, device="cuda").uniform_(), torch.bernoulli(torch.full((5,), 0.5, device="cuda")),
                torch.multinomial(torch.ones(5, device="cuda"), 3), torch.nn.functional.dropout(torch.ones(9, device="cuda"))]  # fmt: skip

    torch.manual_seed(7)
    first = draw()
    state = torch.cuda.get_rng_state()
    second = draw()
    torch.cuda.manual_seed(7)
    for a, b in zip(first, draw()):
        same_bits(a.cpu(), b)
    torch.cuda.set_rng_state(state)
    for a, b in zip(second, draw()):
        same_bits(a.cpu(), b)
    assert not torch.equal(first[0], second[0])
    own = torch.Generator("cuda").manual_seed(3)
    a = torch.rand(4, device="cuda", generator=own)
    torch.rand(9, device="cuda")
    assert torch.equal(a, torch.rand(4, device="cuda", generator=own.manual_seed(3)))
