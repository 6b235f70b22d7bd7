"""torch.cuda and torch.accelerator answer as with one local GPU."""

import time

import torch


def only_cuda_devices(device):
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert torch.cuda.current_device() == 0
    torch.cuda.set_device(0)
    torch.cuda.set_device("cuda:0")
    name = torch.cuda.get_device_name()
    assert name and name == torch.cuda.get_device_name(0)
    properties = torch.cuda.get_device_properties(0)
    assert properties.name == name
    assert properties.total_memory > 2**26
    assert properties.multi_processor_count >= 1
    assert (properties.major, properties.minor) == torch.cuda.get_device_capability()
    assert torch.version.cuda
    assert torch.device("cuda:0") == torch.ones(1, device="cuda").device
    with torch.cuda.device(0):
        assert torch.ones(1, device="cuda").get_device() == 0
    torch.cuda.synchronize()
    torch.cuda.synchronize("cuda:0")


def only_cuda_memory(device):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    x = torch.empty(1 << 20, device="cuda")
    during = torch.cuda.memory_allocated()
    assert during - before == 4 << 20
    assert torch.cuda.memory_reserved() >= during
    assert torch.cuda.max_memory_allocated() >= during
    del x
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= during
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == before
    free, total = torch.cuda.mem_get_info()
    assert 0 < free <= total == torch.cuda.get_device_properties(0).total_memory
    assert "Allocated memory" in torch.cuda.memory_summary()
    assert torch.cuda.memory_stats()["allocated_bytes.all.current"] == before


def only_cuda_too_much_memory_raises_at_that_line(device):
    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_allocated()
    try:
        torch.empty(4 * total, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        assert "out of memory" in str(error)
    else:
        raise AssertionError("no OutOfMemoryError")
    assert torch.cuda.memory_allocated() == before
    assert torch.ones(3, device="cuda").sum().item() == 3


def only_cuda_accelerator(device):
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator().type == "cuda"
    assert torch.accelerator.device_count() == 1
    assert torch.accelerator.current_device_index() == 0
    torch.accelerator.set_device_index(0)
    x = torch.ones(1 << 20, device=torch.accelerator.current_accelerator())
    torch.accelerator.synchronize()
    assert x.is_cuda
    assert torch.accelerator.memory_allocated() >= 4 << 20
    torch.accelerator.empty_cache()
    stream = torch.accelerator.current_stream()
    stream.synchronize()


def only_cuda_streams_and_events(device):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    x = torch.randn(400, 400).cuda()
    start.record()
    for _ in range(5):
        x = x @ x / 400
    end.record()
    end.synchronize()
    assert end.query()
    assert 0 < start.elapsed_time(end) < 60_000
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        y = x + 1
        done = stream.record_event()
    torch.cuda.current_stream().wait_event(done)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    y.record_stream(torch.cuda.current_stream())
    assert torch.equal(y.cpu(), x.cpu() + 1)
    stream.synchronize()
    assert stream.query()


def only_cuda_elapsed_time_is_about_the_work(device):
    x = torch.randn(700, 700).cuda()
    torch.cuda.synchronize()
    shares = []
    for _ in range(5):  # a busy machine may hold up one side or the other, not every time
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before = time.perf_counter()
        start.record()
        for _ in range(10):
            x @ x
        end.record()
        torch.cuda.synchronize()
        shares.append(start.elapsed_time(end) / ((time.perf_counter() - before) * 1e3))
    assert max(shares) <= 1.05
    assert max(shares) > 0.2


def only_cuda_generators(device):
    def draw(generator=None):
        return torch.randn(100, device="cuda", generator=generator).cpu()

    torch.manual_seed(3)
    first = draw()
    torch.cuda.manual_seed(3)
    assert torch.equal(draw(), first)
    torch.cuda.manual_seed_all(3)
    assert torch.equal(draw(), first)
    assert not torch.equal(draw(), first)
    assert torch.cuda.initial_seed() == 3
    state = torch.cuda.get_rng_state()
    again = draw()
    torch.cuda.set_rng_state(state)
    assert torch.equal(draw(), again)
    with torch.random.fork_rng(devices=[0]):
        draw()
    other = torch.Generator(device="cuda").manual_seed(3)
    assert other.device == torch.device("cuda:0")
    assert other.initial_seed() == 3
    assert torch.equal(draw(other), first)
    state = other.get_state()
    again = draw(other)
    other.set_state(state)
    assert torch.equal(draw(other), again)
    assert torch.cuda.default_generators[0].device.type == "cuda"


def only_cuda_errors_are_cuda_s(device):
    def message(function, *kinds):
        try:
            function()
        except kinds as error:
            return str(error)
        raise AssertionError("nothing was raised")

    assert "invalid device ordinal" in message(lambda: torch.zeros(1, device="cuda:7"), RuntimeError)
    text = message(lambda: torch.ones(2, device="cuda") + torch.ones(2), RuntimeError)
    assert "Expected all tensors to be on the same device" in text
    assert "shape" in message(lambda: torch.ones(2, 3).cuda() @ torch.ones(2, 3).cuda(), RuntimeError)
    assert "can't convert cuda" in message(lambda: torch.ones(2).cuda().numpy(), TypeError)
    message(lambda: torch.arange(3, device="cuda")[5], IndexError)
    message(lambda: torch.linalg.inv(torch.zeros(2, 2, device="cuda")).sum().item(), RuntimeError)
    assert torch.ones(3, device="cuda").sum().item() == 3


def only_cuda_an_operator_nobody_knows_is_named(device):
    library = torch.library.Library("nobody", "DEF")
    library.define("knows(Tensor x) -> Tensor")
    library.impl("knows", lambda x: x + 1, "CPU")
    try:
        torch.ops.nobody.knows(torch.ones(2, device="cuda"))
    except (NotImplementedError, RuntimeError) as error:
        assert "nobody::knows" in str(error)
    else:
        raise AssertionError("nothing was raised")


def only_cuda_no_compute_on_our_own_cpu(device):
    """Method: every operator of the step gets a CPU kernel here that notes its name; on cuda none may be called."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 1, 8, 8).cuda(), torch.randint(10, (8,)).cuda()
    called = []
    library = torch.library.Library("aten", "IMPL")
    for name in [
        "mm",
        "addmm",
        "add.Tensor",
        "add_.Tensor",
        "mul.Tensor",
        "mul_.Tensor",
        "div.Tensor",
        "sub.Tensor",
        "sum",
        "sum.dim_IntList",
        "mean",
        "relu",
        "relu_",
        "threshold_backward",
        "native_batch_norm",
        "native_batch_norm_backward",
        "convolution",
        "convolution_backward",
        "_log_softmax",
        "_log_softmax_backward_data",
        "nll_loss_forward",
        "nll_loss_backward",
        "_foreach_add_.List",
        "_foreach_mul_.Scalar",
        "_foreach_add_.Scalar",
        "neg",
        "exp",
        "sqrt",
        "addcdiv",
        "addcmul",
    ]:

        def note(*arguments, name=name, **keywords):
            called.append(name)
            raise AssertionError(f"{name} on the client's CPU")

        library.impl(name, note, "CPU", allow_override=True)
    try:
        for _ in range(2):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() > 0
    finally:
        library._destroy()
    assert not called
