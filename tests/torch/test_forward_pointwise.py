"""Pointwise operators, type promotion, comparison and in-place forms: equal to the CPU, bit for bit."""

import pytest
import torch
from compare import both_fail, check

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def values(dtype, *shape, low=-3, high=3):
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    return torch.randint(max(low, 0) if dtype == torch.uint8 else low, high, shape).to(dtype)


UNARY = [
    "abs",
    "neg",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
    "digamma",
    "ceil",
    "floor",
    "round",
    "trunc",
    "frac",
    "sign",
    "sigmoid",
    "reciprocal",
    "square",
    "relu",
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "deg2rad",
    "rad2deg",
    "exp2",
    "sinc",
    "logit",
    "i0",
    "nan_to_num",
    "positive",
    "logical_not",
]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        check(getattr(torch, name), values(dtype, 5, 7), strides=True)


@pytest.mark.parametrize("name", ["abs", "neg", "sign", "bitwise_not", "square", "exp", "sqrt", "logical_not"])
@pytest.mark.parametrize("dtype", INTS)
def test_unary_of_integers(name, dtype):
    check(getattr(torch, name), values(dtype, 4, 3))


BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "true_divide",
    "pow",
    "atan2",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "fmod",
    "remainder",
    "hypot",
    "logaddexp",
    "copysign",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_xor",
    "floor_divide",
    "nextafter",
    "xlogy",
    "heaviside",
]


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    function = getattr(torch, name)
    for dtype in (torch.float32, torch.float64):
        check(function, values(dtype, 3, 4), values(dtype, 3, 4), strides=True)
        check(function, values(dtype, 3, 1, 4), values(dtype, 5, 1))
        check(function, values(dtype, 3, 4).t(), values(dtype, 4, 3))


@pytest.mark.parametrize(
    "left",
    [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64, torch.complex64],
)
@pytest.mark.parametrize(
    "right", [torch.bool, torch.int8, torch.int64, torch.bfloat16, torch.float32, torch.complex128]
)
def test_types_are_promoted(left, right):
    check(torch.add, values(left, 2, 3), values(right, 3))
    check(torch.mul, values(left, 2, 3), values(right, 1).squeeze())


@pytest.mark.parametrize("scalar", [2, -1, 2.5, True, 1 + 2j, 1e10, 2**40, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float16, torch.float32, torch.complex64])
def test_python_numbers_are_operands(scalar, dtype):
    check(lambda x: x + scalar, values(dtype, 4))
    check(lambda x: scalar * x, values(dtype, 4))
    check(lambda x: x == scalar, values(dtype, 4))


def test_integers_overflow_alike():
    check(lambda x: x * x * x, torch.tensor([100, -100, 127], dtype=torch.int8))
    check(lambda x: x + 2**62, torch.tensor([2**62, 2**62 + 1]))
    check(lambda x: x.to(torch.int16), torch.tensor([2**20 + 5, -(2**17)]))
    check(lambda x: x.sum(), torch.full((300,), 200, dtype=torch.uint8))


def test_zero_dimensional_operands():
    point = torch.tensor(1.5)
    check(lambda x, p: x + p, torch.randn(3), point)
    check(lambda p: p + p, point)
    x = torch.randn(3, 4)
    assert torch.equal((x.cuda() * point).cpu(), x * point), "a 0-dim CPU tensor is an operand"
    assert torch.equal((point - x.cuda()).cpu(), point - x)
    assert (
        torch.ones(2, dtype=torch.float32, device="cuda") + torch.tensor(1.5, dtype=torch.float64)
    ).dtype == torch.float32
    out = x.cuda()
    out += torch.tensor(2, dtype=torch.int64)
    assert torch.equal(out.cpu(), x + 2)


def test_values_of_cpu_numbers_are_not_kept_in_plans():
    x = torch.ones(2, device="cuda")
    for value in (1.0, 5.0, -2.0):
        assert (x * torch.tensor(value)).tolist() == [value, value]
        assert (x * value).tolist() == [value, value]
        assert torch.full((2,), value, device="cuda").tolist() == [value, value]


@pytest.mark.parametrize("name", ["add_", "sub_", "mul_", "div_", "pow_", "fmod_", "copysign_", "atan2_", "lt_", "eq_"])
def test_in_place(name):
    check(lambda x, y: getattr(x, name)(y), values(torch.float32, 4, 5), values(torch.float32, 5))


@pytest.mark.parametrize("name", ["abs_", "neg_", "exp_", "sigmoid_", "tanh_", "zero_", "relu_", "floor_", "sqrt_"])
def test_unary_in_place(name):
    check(lambda x: getattr(x, name)(), values(torch.float32, 4, 5))
    check(lambda x: getattr(x.t()[1:, ::2], name)(), values(torch.float32, 4, 5))


def test_ternary():
    a, b, c = (torch.randn(3, 4) for _ in range(3))
    check(lambda a, b, c: torch.addcmul(a, b, c, value=0.5), a, b, c)
    check(lambda a, b, c: torch.addcdiv(a, b, c, value=2), a, b, c)
    check(lambda a, b, c: torch.where(a > 0, b, c), a, b, c)
    check(lambda a, b: torch.where(a > 0, b, 0.0), a, b)
    check(lambda a, b: torch.lerp(a, b, 0.25), a, b)
    check(lambda a, b, c: torch.lerp(a, b, c), a, b, c)
    check(lambda a: a.clamp(-0.5, 0.5), a)
    check(lambda a: a.clamp(min=0.1), a)
    check(lambda a, b: a.clamp(max=b), a, b)


@pytest.mark.parametrize(
    "name",
    [
        "gelu",
        "silu",
        "mish",
        "elu",
        "selu",
        "celu",
        "softplus",
        "softsign",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "leaky_relu",
        "logsigmoid",
        "relu6",
        "tanhshrink",
        "softshrink",
    ],
)
def test_activations_and_their_gradients(name):
    check(getattr(torch.nn.functional, name), torch.randn(4, 5, requires_grad=True), grad=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_types(dtype):
    x = values(dtype, 3, 5)
    check(lambda x: (x * 2 + 1, x.sigmoid(), x / 3, x.to(torch.float32), x.max(), x.sum()), x)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int32, torch.bool, torch.complex64, torch.bfloat16]
)
def test_conversions(dtype):
    for source in (torch.float32, torch.int64, torch.uint8, torch.bool, torch.float16):
        check(lambda x: x.to(dtype), values(source, 3, 4))


def test_bitwise():
    a, b = torch.randint(-9, 9, (6,)), torch.randint(0, 5, (6,))
    check(lambda a, b: (a & b, a | b, a ^ b, ~a, a << b, a >> b, a & 3), a, b)
    check(lambda a, b: (a & b, a | b, a ^ b, ~a), a > 0, b > 2)


def test_complex():
    z, w = torch.randn(3, 4, dtype=torch.complex64), torch.randn(4, 3, dtype=torch.complex64)
    check(lambda z: (z.conj(), z.conj() * z, z.real, z.imag, z.abs(), z.angle(), -z.imag), z)
    check(lambda z, w: (z @ w, z.conj() @ w, z @ w.mH.mT, z.conj().t().conj()), z, w)
    check(lambda z: (z.conj().sum(), z.conj() + 1, torch.view_as_real(z), z.conj().resolve_conj()), z)
    check(lambda z, w: torch.addmm(z @ w, z.conj(), w), z, w)
    check(lambda z: z.conj().imag.neg(), z)
    check(lambda z: z.clone().copy_(z.conj()), z)
    check(lambda z: (z.clone().conj_physical_(), z.real.clone().conj_physical_()), z)
    check(lambda z: torch.svd(z, out=(z.new_empty(0), z.real.new_empty(0), z.new_empty(0))), z)
    check(lambda z: torch.fft.ifft(torch.fft.fft(z)).conj(), z)
    lazily = z.cuda().conj()
    assert lazily.is_conj() and torch.equal(lazily.cpu(), z.conj())
    assert lazily[0, 0].item() == z.conj()[0, 0].item() and z.cuda().imag[1, 1].item() == z.imag[1, 1].item()
    assert z.cuda().conj().imag[1, 1].item() == z.conj().imag[1, 1].item(), "the neg bit of conj().imag"
    target = torch.zeros(3, 4, dtype=torch.complex64)
    check(lambda t, z: t.conj().copy_(z), target, z)
    check(lambda z: (z.conj() * z).real, z.clone().requires_grad_(), grad=True)


def test_wrong_types_are_refused_alike():
    both_fail(lambda x: x.add_(1.5), torch.ones(3, dtype=torch.int64))
    both_fail(lambda a, b: a + b, torch.ones(3), torch.ones(4))
    both_fail(lambda a, b: a.add_(b), torch.ones(3), torch.ones(2, 3))
    both_fail(lambda x: x ^ x, torch.ones(3))


def test_tensors_of_two_devices_are_refused_as_cuda_refuses_them():
    x = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu!"):
        x.cuda() + x
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        x.cuda() @ x
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cuda:1!"):
        x.to("cuda:0") * x.to("cuda:1")
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.cat([x.cuda(), x])


def test_empty_tensors():
    check(lambda x: (x + 1, x.sum(), x * x, x.sum(0), x.t(), x.reshape(0)), torch.empty(0, 3))
    check(lambda x, y: x @ y, torch.empty(0, 3), torch.empty(3, 2))
    check(lambda x, y: x @ y, torch.empty(2, 0), torch.empty(0, 2))
    check(lambda x: torch.cat([x, x]), torch.empty(0))
    assert torch.empty(0, device="cuda").tolist() == []
