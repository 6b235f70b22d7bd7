"""Quantized tensors on `cuda`: integers, scales, zero points, schemes and errors are those of plain PyTorch on the CPU."""

import io
import warnings

import pytest
import torch

warnings.filterwarnings("ignore", message=".*quantiz.*")

AFFINE = {"scale": 0.05, "zero_point": 3}


def values(*size):
    return torch.linspace(-3, 4, torch.Size(size).numel()).reshape(size)


def per_tensor(device, *size, dtype=torch.quint8, scale=0.05, zero_point=3):
    return torch.quantize_per_tensor(values(*size).to(device), scale, zero_point, dtype)


def per_channel(device, axis=0, dtype=torch.qint8, floats=False):
    scales = torch.tensor([0.1, 0.05, 0.2], dtype=torch.float64, device=device)
    zero_points = torch.tensor([0.5, 1.25, 0.0] if floats else [0, 1, -2], device=device)
    return torch.quantize_per_channel(values(3, 3, 4).to(device), scales, zero_points, axis, dtype)


def same(far, near, device="cuda"):
    """Equal in everything that a program can ask of a result."""
    if isinstance(near, (tuple, list)):
        assert type(far) is type(near)
        assert len(far) == len(near)
        for pair in zip(far, near, strict=True):
            same(*pair, device)
    elif not isinstance(near, torch.Tensor):
        assert far == near
    else:
        assert (far.device.type, near.device.type) == (device, "cpu")
        assert (far.dtype, far.shape, far.stride()) == (near.dtype, near.shape, near.stride())
        assert far.is_quantized == near.is_quantized
        if not near.is_quantized:
            assert torch.equal(far.cpu(), near)
            return
        assert far.qscheme() == near.qscheme()
        if near.qscheme() == torch.per_tensor_affine:
            assert (far.q_scale(), far.q_zero_point()) == (near.q_scale(), near.q_zero_point())
        else:
            assert far.q_per_channel_axis() == near.q_per_channel_axis()
            same(far.q_per_channel_scales(), near.q_per_channel_scales(), device)
            same(far.q_per_channel_zero_points(), near.q_per_channel_zero_points(), device)
        assert torch.equal(far.int_repr().cpu(), near.int_repr())
        assert torch.equal(far.dequantize().cpu(), near.dequantize())


def both(program):
    same(program("cuda"), program("cpu"))


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32])
def test_what_is_quantized_says_so(dtype):
    both(lambda device: per_tensor(device, 4, 5, dtype=dtype))
    x = per_tensor("cuda", 4, 5, dtype=dtype)
    assert (x.q_scale(), x.q_zero_point(), x.element_size()) == (0.05, 3, 4 if dtype == torch.qint32 else 1)
    assert x.int_repr().dtype == {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}[dtype]
    assert x.is_cuda
    assert x.data_ptr()


def test_parameters_may_be_tensors_or_found():
    def program(device):
        x = values(6, 7).to(device)
        found = torch.quantize_per_tensor_dynamic(x, torch.quint8, False)
        scale, zero_point = torch.tensor(0.1, device=device), torch.tensor(4, device=device)
        each = torch.quantize_per_tensor(
            [x, -x], torch.stack([scale, scale]), torch.stack([zero_point] * 2), torch.qint8
        )
        return found, torch.quantize_per_tensor(x, scale, zero_point, torch.quint8), list(each)

    both(program)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("floats", [False, True])
def test_by_channel(axis, floats):
    dtype = torch.quint8 if floats else torch.qint8
    both(lambda device: per_channel(device, axis, dtype, floats))
    if floats:
        with pytest.raises(RuntimeError, match="clone for quantized Tensor only works"):
            per_channel("cuda", axis, dtype, floats).clone()
    else:
        both(lambda device: per_channel(device, axis, dtype, floats).clone())


def test_several_elements_to_a_byte():
    def program(device):
        x = torch.quantize_per_tensor(values(3, 5).to(device), 0.5, 7, torch.quint4x2)
        return x.dequantize(), x.int_repr(), x.q_scale()

    both(program)
    x = torch.quantize_per_tensor(values(3, 5), 0.5, 7, torch.quint4x2)
    assert torch.equal(x.cuda().dequantize().cpu(), x.dequantize())


def test_there_and_back():
    for make in (lambda device: per_tensor(device, 3, 4), per_channel):
        near = make("cpu")
        far = near.to("cuda")
        same(far, near)
        same(far.cpu(), near, "cpu")
        same(far.to("cuda:1").cpu(), near, "cpu")
        assert far.to("cuda:1").device == torch.device("cuda:1")
        assert far.to("cuda") is far
    x = per_tensor("cpu", 3, 4)
    same(x.cuda().t().cpu(), x.t().to("cpu", copy=True), "cpu")


def test_saved_and_loaded():
    for make in (lambda device: per_tensor(device, 3, 4)[1:], per_channel):
        file = io.BytesIO()
        torch.save({"x": make("cuda")}, file)
        file.seek(0)
        same(torch.load(file)["x"], make("cpu"))
        file.seek(0)
        same(torch.load(file, map_location="cpu")["x"], make("cpu"), "cpu")


def test_copies():
    def program(device):
        x = torch._empty_affine_quantized([3, 4], scale=1.0, zero_point=0, dtype=torch.quint8, device=device)
        x.copy_(per_tensor(device, 3, 4))
        floats = torch._empty_affine_quantized([3, 4], scale=0.1, zero_point=9, dtype=torch.quint8, device=device)
        floats.copy_(values(3, 4).to(device))
        part = per_tensor(device, 4, 4)
        part[1:3].copy_(per_tensor(device, 2, 4, scale=0.05, zero_point=3))
        return x, floats, part, x.clone(), x.detach()

    both(program)
    x = torch._empty_affine_quantized([2, 3], **AFFINE, dtype=torch.quint8)
    x.copy_(per_tensor("cuda", 2, 3))
    same(x, per_tensor("cpu", 2, 3), "cpu")


def test_made_from_integers():
    def program(device):
        integers = torch.arange(12, dtype=torch.uint8, device=device).reshape(3, 4)
        channels = torch._make_per_channel_quantized_tensor(
            integers.to(torch.int8),
            torch.tensor([0.5, 1.0, 2.0], device=device),
            torch.tensor([1, 2, 3], device=device),
            0,
        )
        return torch._make_per_tensor_quantized_tensor(integers, 0.25, 7), channels

    both(program)


VIEWS = {
    "transpose": lambda x: x.transpose(0, 1),
    "slice": lambda x: x[1:, ::2],
    "select": lambda x: x[2],
    "reshape": lambda x: x.reshape(2, -1),
    "view": lambda x: x.view(-1, 2),
    "permute then contiguous": lambda x: x.permute(1, 0).contiguous(),
    "expand": lambda x: x[:1].expand(5, -1),
    "squeeze": lambda x: x[None].squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "flatten": lambda x: x.flatten(),
    "chunk": lambda x: x.chunk(2),
    "unbind": lambda x: x.unbind(1),
    "as_strided": lambda x: x.as_strided((2, 2), (1, 2), 1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    both(lambda device: VIEWS[name](per_tensor(device, 4, 6)))


def test_a_view_is_one():
    x = per_tensor("cuda", 4, 6)
    x[1].copy_(per_tensor("cuda", 6))
    y = per_tensor("cpu", 4, 6)
    y[1].copy_(per_tensor("cpu", 6))
    same(x, y)


q = torch.ops.quantized
OPERATORS = {
    "relu": lambda x, y: torch.relu(x),
    "relu_": lambda x, y: x.relu_(),
    "relu6": lambda x, y: q.relu6(x, False),
    "clamp": lambda x, y: torch.clamp(x, -0.5, 1.0),
    "hardtanh": lambda x, y: torch.nn.functional.hardtanh(x, -1, 1),
    "hardtanh_": lambda x, y: torch.nn.functional.hardtanh_(x, -1, 1),
    "sigmoid": lambda x, y: torch.sigmoid(x),
    "tanh": lambda x, y: torch.tanh(x),
    "gelu": lambda x, y: torch.nn.functional.gelu(x),
    "leaky_relu": lambda x, y: torch.nn.functional.leaky_relu(x, 0.1),
    "threshold": lambda x, y: torch.threshold(x, 0.5, 0.1),
    "hardsigmoid": lambda x, y: torch.nn.functional.hardsigmoid(x),
    "cat": lambda x, y: torch.cat([x, y], 1),
    "quantized cat": lambda x, y: q.cat([x, y], 1, 0.1, 5),
    "stack": lambda x, y: torch.stack([x, x]),
    "index by list": lambda x, y: x[[0, 0], [1, 0]],
    "index by mask": lambda x, y: x[x > y],
    "index_select": lambda x, y: x.index_select(1, torch.tensor([1, 0], device=x.device)),
    "flip": lambda x, y: x.flip(0),
    "equal": lambda x, y: (torch.equal(x, y), torch.equal(x, x.clone())),
    "compare": lambda x, y: (x > y, x == y, x <= 0.3, x.ne(y)),
    "max": lambda x, y: (x.max(), x.min(), *x.max(1)),
    "mean": lambda x, y: x.mean([2, 3]),
    "std": lambda x, y: x.std(1),
    "sort": lambda x, y: x.sort(1)[0],
    "topk": lambda x, y: x.topk(2, 3)[0],
    "fill_": lambda x, y: x.fill_(1.0),
    "masked_fill_": lambda x, y: x.masked_fill_(x > 0.5, 0.25),
    "index_put_": lambda x, y: x.index_put_(
        (torch.tensor([0, 1], device=x.device),), torch.tensor(0.5, device=x.device)
    ),
    "max_pool2d": lambda x, y: torch.nn.functional.max_pool2d(x, 2),
    "avg_pool2d": lambda x, y: torch.nn.functional.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x, y: torch.nn.functional.adaptive_avg_pool2d(x, 1),
    "upsample": lambda x, y: torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"),
    "upsample bilinear": lambda x, y: torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "pad": lambda x, y: torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "channel_shuffle": lambda x, y: torch.nn.functional.channel_shuffle(x, 3),
    "add": lambda x, y: q.add(x, y, 0.1, 2),
    "add_relu": lambda x, y: q.add_relu(x, y, 0.1, 2),
    "add scalar": lambda x, y: (q.add_scalar(x, 1.5), q.mul_scalar(x, -2)),
    "mul": lambda x, y: q.mul(x, y, 0.2, 1),
    "mul_relu": lambda x, y: q.mul_relu(x, y, 0.2, 1),
    "add out": lambda x, y: q.add_out(x, y, torch.empty_like(x)),
    "matmul": lambda x, y: q.matmul(x, y.transpose(2, 3), 0.5, 100),
    "hardswish": lambda x, y: q.hardswish(x, 0.1, 2),
    "elu": lambda x, y: q.elu(x, 0.1, 100, 1.0),
    "quantized leaky_relu": lambda x, y: q.leaky_relu(x, 0.1, False, 0.1, 2),
    "softmax": lambda x, y: q.softmax(x, 1, 1 / 256, 0),
    "quantized sigmoid": lambda x, y: q.sigmoid(x, 1 / 256, 0),
    "layer_norm": lambda x, y: q.layer_norm(x, [4, 4], None, None, 1e-5, 0.05, 128),
    "batch_norm2d": lambda x, y: q.batch_norm2d(
        x, *[torch.ones(3, device=x.device)] * 2, *[torch.ones(3, device=x.device)] * 2, 1e-5, 0.1, 4
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    def program(device):
        x = per_tensor(device, 2, 3, 4, 4)
        return OPERATORS[name](x, per_tensor(device, 2, 3, 4, 4, zero_point=60))

    both(program)


def test_the_known_ones_wait_for_nothing():
    """Goal: results whose scale the call says itself are not asked for, whatever the scale."""
    import waldo

    def program(scale):
        x = torch.quantize_per_tensor(floats, scale, 3, torch.quint8)
        y = q.add_relu(torch.relu(x), x, scale * 2, 4)
        return torch.nn.functional.max_pool2d(y, 2).dequantize()

    floats = values(2, 3, 4, 4).cuda()
    program(0.05)
    before = waldo.stats()["waits"]
    results = [program(scale) for scale in (0.1, 0.2, 0.3)]
    assert waldo.stats()["waits"] == before
    floats = floats.cpu()
    same(results, [program(scale) for scale in (0.1, 0.2, 0.3)])


def test_scales_are_no_new_plans():
    import waldo

    x = values(8).cuda()
    for scale in (0.1, 0.2):
        torch.quantize_per_tensor(x, scale, 0, torch.qint8).dequantize()
    before = waldo.stats()["plans"]
    for i in range(20):
        torch.quantize_per_tensor(x, 0.3 + i, 0, torch.qint8).dequantize()
    assert waldo.stats()["plans"] == before


def linear_weights(bias=True):
    torch.manual_seed(3)
    return torch.quantize_per_tensor(torch.randn(5, 8), 0.02, 0, torch.qint8), torch.randn(5) if bias else None


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    def program(device):
        x = per_tensor(device, 3, 8)
        weight, offset = linear_weights(bias)
        packed = q.linear_prepack(weight.to(device), None if offset is None else offset.to(device))
        return q.linear(x, packed, 0.3, 10), q.linear_relu(x, packed, 0.3, 10), q.linear(x, packed, 0.1, 0)

    both(program)


def test_convolutions():
    def program(device):
        torch.manual_seed(4)
        weight = torch.quantize_per_channel(
            torch.randn(6, 3, 3, 3),
            torch.rand(6).double() / 10 + 0.01,
            torch.zeros(6, dtype=torch.long),
            0,
            torch.qint8,
        )
        packed = q.conv2d_prepack(weight.to(device), torch.randn(6).to(device), [1, 1], [1, 1], [1, 1], 1)
        x = per_tensor(device, 2, 3, 6, 6)
        return q.conv2d(x, packed, 0.5, 30), q.conv2d_relu(x, packed, 0.5, 30)

    both(program)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.pool = torch.nn.MaxPool2d(2)
        self.linear = torch.nn.Linear(4 * 3 * 3, 5)
        self.dequant = torch.ao.quantization.DeQuantStub()

    def forward(self, x):
        x = self.pool(self.relu(self.conv(self.quant(x))))
        return self.dequant(self.linear(x.flatten(1)))


def test_modules_quantized_after_training():
    """Goal: prepare, calibrate and convert on the CPU, then run on both; and the state moves."""
    torch.manual_seed(5)
    model = Small().eval()
    model.qconfig = torch.ao.quantization.default_qconfig
    model = torch.ao.quantization.prepare(model)
    x = torch.randn(4, 3, 6, 6)
    model(x)
    model = torch.ao.quantization.convert(model)
    near = model(x)
    model.to("cuda")
    far = model(x.cuda())
    same(far, near)
    same(model(x.cuda()), near)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.load(file, weights_only=False)


def test_calibrated_on_the_device():
    def program(device):
        torch.manual_seed(5)
        model = Small().eval().to(device)
        model.qconfig = torch.ao.quantization.default_qconfig
        model = torch.ao.quantization.prepare(model)
        x = torch.randn(4, 3, 6, 6).to(device)
        model(x)
        model = torch.ao.quantization.convert(model)
        return model.conv.scale, model.conv.zero_point, model(x)

    both(program)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_linear_quantized_when_it_runs(dtype):
    torch.manual_seed(6)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=dtype)
    x = torch.randn(3, 8)
    near = model(x)
    same(model.to("cuda")(x.cuda()), near)
    same(model(x.cuda() * 2), model(x * 2))


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_lstm_quantized_when_it_runs(dtype):
    torch.manual_seed(7)
    lstm = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(6, 5, num_layers=2)})
    model = torch.ao.quantization.quantize_dynamic(lstm, {torch.nn.LSTM}, dtype=dtype)["lstm"]
    x, h, c = torch.randn(4, 2, 6), torch.randn(2, 2, 5), torch.randn(2, 2, 5)
    near = model(x, (h, c))
    same(model.to("cuda")(x.cuda(), (h.cuda(), c.cuda())), near)


def test_fake_quantize_is_of_floats():
    def program(device):
        fake = torch.ao.quantization.FakeQuantize().to(device)
        x = values(3, 4).to(device).requires_grad_()
        y = fake(x)
        y.sum().backward()
        return y.detach(), x.grad, fake.scale

    both(program)


def test_it_is_printed():
    text = repr(per_tensor("cuda", 2, 2))
    assert "device='cuda:0'" in text
    assert text.replace("device='cuda:0', ", "") == repr(per_tensor("cpu", 2, 2))


WRONG = {
    "to a plain tensor": lambda x: torch.empty(2, 3, device=x.device).copy_(x),
    "other scheme": lambda x: x.copy_(per_channel(x.device)[0, :2, :3]),
    "other dtype": lambda x: x.copy_(per_tensor(x.device, 2, 3, dtype=torch.qint8)),
    "from integers": lambda x: x.copy_(torch.ones(2, 3, dtype=torch.int32, device=x.device)),
    "quantize integers": lambda x: torch.quantize_per_tensor(
        torch.ones(3, dtype=torch.long, device=x.device), 1, 0, torch.quint8
    ),
    "zero point": lambda x: torch.quantize_per_tensor(torch.ones(3, device=x.device), 1.0, 300, torch.quint8),
    "scale of channels": lambda x: per_channel(x.device).q_scale(),
    "channels of a tensor": lambda x: x.q_per_channel_axis(),
    "sizes": lambda x: q.add(x, per_tensor(x.device, 4, 5), 1.0, 0),
    "add of dtypes": lambda x: q.add(x, per_tensor(x.device, 2, 3, dtype=torch.qint8), 1.0, 0),
    "linear of signed": lambda x: q.linear(
        per_tensor(x.device, 2, 8, dtype=torch.qint8), q.linear_prepack(*linear_weights()), 1.0, 0
    ),
    "linear of other sizes": lambda x: q.linear(x, q.linear_prepack(*linear_weights()), 1.0, 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_fail_as_on_the_cpu(name):
    with pytest.raises(RuntimeError) as near:
        WRONG[name](per_tensor("cpu", 2, 3))
    with pytest.raises(RuntimeError) as far:
        WRONG[name](per_tensor("cuda", 2, 3))
    first = str(near.value).splitlines()[0]
    assert str(far.value).splitlines()[0].replace("QuantizedCUDA", "QuantizedCPU").replace("cuda", "cpu") == first
    same(torch.relu(per_tensor("cuda", 2, 3)), torch.relu(per_tensor("cpu", 2, 3)))  # the device works on


def test_on_another_device():
    x = per_tensor("cuda:1", 2, 3)
    made = [x, x.clone(), torch.relu(x), x.t(), torch.empty_like(x), x[0], x.sigmoid(), q.add(x, x, 0.5, 1)]
    assert {y.device for y in made} == {torch.device("cuda:1")}
    same(made[-1], q.add(per_tensor("cpu", 2, 3), per_tensor("cpu", 2, 3), 0.5, 1))


def test_mixed_devices():
    far, near = per_tensor("cuda", 2, 3), per_tensor("cpu", 2, 3)
    for other in (near, far.to("cuda:1")):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            q.add(far, other, 1.0, 0)
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            torch.cat([far, other])


def test_what_the_cpu_has_not_is_not_here_either():
    x = per_tensor("cuda", 2, 3)
    with pytest.raises((NotImplementedError, RuntimeError)) as error:
        torch.exp(x)
    assert "QuantizedCUDA" in str(error.value) or "dtype" in str(error.value)
    same(x, per_tensor("cpu", 2, 3))
