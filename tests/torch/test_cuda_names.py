"""torch.cuda, torch.accelerator and their neighbours, unmodified, over the names we put into torch._C."""

import gzip
import itertools
import json
import re
from pathlib import Path

import pytest
import torch

DEVICES = 2


def _names_in(text):
    return set(re.findall(r"\btorch\._C\.(_?[A-Za-z]\w+)", text)) | set(re.findall(r"(?<![\w.])_C\.(_\w+)", text))


def test_every_name_that_torch_cuda_refers_to_exists():
    """Goal: no file of torch/cuda meets an AttributeError. Method: scan the sources for what they take from torch._C."""
    root = Path(torch.__file__).parent
    files = [*root.glob("cuda/*.py"), *root.glob("backends/cu*/*.py"), root / "nn/parallel/comm.py"]
    missing = {
        f"{name} ({path.relative_to(root)})"
        for path in files
        for name in _names_in(path.read_text())
        if not hasattr(torch._C, name) and not name.startswith(("_gds_", "_cusparselt"))  # guarded by their files
    }
    assert not missing


def test_devices():
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == DEVICES
    assert torch.backends.cuda.is_built()
    assert torch.version.cuda is not None
    torch.cuda.init()
    assert torch.cuda.is_initialized()
    assert torch.cuda.current_device() == 0
    for index in range(DEVICES):
        with torch.cuda.device(index):
            assert torch.cuda.current_device() == index
            assert torch.empty(1, device="cuda").device == torch.device("cuda", index)
    assert torch.cuda.current_device() == 0
    torch.cuda.set_device("cuda:1")
    try:
        assert torch.cuda.current_device() == 1
        with torch.cuda.device_of(torch.empty(1, device="cuda:0")):
            assert torch.cuda.current_device() == 0
    finally:
        torch.cuda.set_device(0)
    assert torch.cuda.can_device_access_peer(0, 1)
    torch.cuda.synchronize()
    torch.cuda.synchronize(1)
    torch.cuda.ipc_collect()
    assert torch.cuda.get_arch_list() == []


@pytest.mark.parametrize(
    "use", [lambda: torch.cuda.set_device(DEVICES), lambda: torch.empty(1, device=f"cuda:{DEVICES}")]
)
def test_a_device_that_is_not_there(use):
    with pytest.raises(torch.AcceleratorError, match="invalid device ordinal"):
        use()
    assert torch.cuda.current_device() == 0


def test_properties():
    properties = torch.cuda.get_device_properties(0)
    assert properties.name == torch.cuda.get_device_name() == torch.cuda.get_device_name("cuda:1")
    assert torch.cuda.get_device_capability() == (properties.major, properties.minor)
    assert properties.total_memory > 2**26
    assert properties.multi_processor_count >= 1
    assert properties.warp_size == 32
    assert properties.name in repr(properties)
    assert str(properties.uuid)
    with pytest.raises(AssertionError, match="Invalid device id"):
        torch.cuda.get_device_properties(DEVICES)
    with pytest.raises(AttributeError, match="nonsense"):
        properties.nonsense  # noqa: B018
    assert torch.cuda.is_bf16_supported() is True
    assert isinstance(torch.cuda.is_tf32_supported(), bool)


def test_memory_figures():
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.empty(1000, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_allocated() - before == 1024  # rounded to 512 bytes, as CUDA's caching allocator does
    y = torch.empty(3 << 20, dtype=torch.uint8, device="cuda")
    peak = before + 1024 + (3 << 20)
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_allocated() == peak
    assert torch.cuda.memory_reserved() >= peak
    stats = torch.cuda.memory_stats()
    assert stats["requested_bytes.large_pool.current"] >= 3 << 20
    assert stats["allocation.all.current"] == stats["active.all.current"]
    for pool in ("all", "small_pool", "large_pool"):
        figures = [stats[f"allocated_bytes.{pool}.{kind}"] for kind in ("current", "peak", "allocated", "freed")]
        assert figures[0] == figures[2] - figures[3]
        assert figures[1] >= figures[0]
    del x, y
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() == peak
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == before
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before < 2 << 20
    assert torch.cuda.memory_allocated(1) >= 0
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["allocated_bytes.all.allocated"] == 0


def test_a_snapshot_of_memory_has_what_lives():
    x = torch.empty(1000, dtype=torch.uint8, device="cuda")
    y = torch.empty(3 << 20, dtype=torch.uint8, device="cuda:1")
    segments = {segment["address"]: segment for segment in torch.cuda.memory_snapshot()}
    for tensor, kind, taken in ((x, "small", 1024), (y, "large", 3 << 20)):
        segment = segments[tensor.data_ptr()]
        (block,) = segment["blocks"]
        assert (segment["device"], segment["segment_type"]) == (tensor.device.index, kind)
        assert (block["size"], block["requested_size"], block["state"]) == (taken, tensor.nbytes, "active_allocated")
    for device in range(DEVICES):
        mine = [segment for segment in segments.values() if segment["device"] == device]
        assert sum(segment["allocated_size"] for segment in mine) == torch.cuda.memory_allocated(device)
    address = x.data_ptr()
    del x, segments
    assert address not in {segment["address"] for segment in torch.cuda.memory_snapshot()}


def test_memory_of_a_view_and_of_nothing():
    before = torch.cuda.memory_allocated()
    x = torch.empty(0, device="cuda")
    assert x.data_ptr() == 0
    assert torch.cuda.memory_allocated() == before
    y = torch.empty(100, device="cuda")
    view = y[10:]
    assert view.data_ptr() - y.data_ptr() == 40
    assert torch.cuda.memory_allocated() - before == 512
    del y
    assert torch.cuda.memory_allocated() - before == 512


def test_storages_never_overlap():
    """Goal: addresses behave, so that tied-weight detection and overlap checks do. Many sizes, some freed in between."""
    kept = []
    for i in range(200):
        x = torch.empty((i * 7919) % 100_000 + 1, dtype=torch.uint8, device="cuda")
        if i % 3:
            kept.append(x)
    spans = sorted((x.data_ptr(), x.data_ptr() + x.numel()) for x in kept)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(start % 512 == 0 for start, _ in spans)


def test_memory_summary_and_info():
    text = torch.cuda.memory_summary()
    assert "PyTorch CUDA memory summary, device ID 0" in text
    assert torch.cuda.memory_summary(abbreviated=True, device=1)
    free, total = torch.cuda.mem_get_info()
    assert 0 < free <= total == torch.cuda.get_device_properties(0).total_memory
    assert torch.cuda.mem_get_info(1)[1] > 0
    assert torch.cuda.host_memory_stats()["num_host_alloc"] >= 0
    assert torch.cuda.get_allocator_backend() == "native"


def test_out_of_memory_is_raised_at_that_line():
    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_allocated()
    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate .* GiB\. GPU 0"):
        torch.empty(total + 1, dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        torch.empty(1 << 60, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_allocated() == before
    torch.cuda.set_per_process_memory_fraction(0.5)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 2 + 512, dtype=torch.uint8, device="cuda")
        assert torch.cuda.get_per_process_memory_fraction() == 0.5
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] >= 3


def test_streams():
    stream = torch.cuda.Stream()
    urgent = torch.cuda.Stream(priority=-1)
    assert stream.device == torch.device("cuda:0")
    assert (stream.priority, urgent.priority) == (0, -1)
    assert stream != urgent
    assert stream != torch.cuda.default_stream()
    assert torch.cuda.Stream.priority_range() == (0, -1)
    default = torch.cuda.current_stream()
    assert default == torch.cuda.default_stream()
    assert default.cuda_stream == 0
    x = torch.ones(3, device="cuda")
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        assert isinstance(torch.cuda.current_stream(), torch.cuda.Stream)
        y = x + 1
        done = stream.record_event()
    assert torch.cuda.current_stream() == default
    default.wait_event(done)
    default.wait_stream(stream)
    y.record_stream(default)
    assert y.tolist() == [2, 2, 2]
    stream.synchronize()
    assert stream.query()
    assert torch.cuda.Stream(device=1).device == torch.device("cuda:1")
    with torch.cuda.stream(torch.cuda.Stream(device=1)):
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0
    assert hash(stream) == hash(stream)
    assert "cuda_stream=0x" in repr(stream)
    assert isinstance(stream, torch.Stream)
    external = torch.cuda.ExternalStream(0x1234, device=0)
    assert external.cuda_stream == 0x1234
    generic = torch.Stream("cuda:1")
    assert generic.device == torch.device("cuda:1")
    generic.synchronize()


def test_events():
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    assert first.query()  # never recorded: nothing to wait for
    first.record()
    x = torch.ones(300, 300, device="cuda")
    for _ in range(5):
        x = x @ x / 300
    last.record()
    last.synchronize()
    assert first.query()
    assert last.query()
    assert 0 < first.elapsed_time(last) < 60_000
    assert isinstance(last, torch.Event)
    assert last.device == torch.device("cuda:0")
    plain = torch.cuda.Event()
    plain.record()
    plain.wait()
    with pytest.raises(ValueError, match="enable_timing=True"):
        first.elapsed_time(plain)
    with pytest.raises(NotImplementedError, match="not available on a Waldo device"):
        torch.cuda.Event(interprocess=True)
    generic = torch.Event("cuda")
    generic.record()
    generic.synchronize()
    assert generic.query()


def test_an_event_of_another_device_orders_work():
    """Goal: cuda:1 sees what cuda:0 wrote before the event, without a wait of this process."""
    x = torch.zeros(1000, device="cuda:0")
    for _ in range(50):
        x += 1
    event = torch.cuda.current_stream(0).record_event()
    torch.cuda.current_stream(1).wait_event(event)
    assert x.to("cuda:1").sum().item() == 50_000


def test_generators():
    def draw(generator=None, device="cuda"):
        return torch.rand(5, device=device, generator=generator).tolist()

    torch.manual_seed(3)
    first = draw()
    other = draw(device="cuda:1")
    torch.cuda.manual_seed(3)
    assert draw() == first
    torch.cuda.manual_seed_all(3)
    assert draw() == first
    assert draw(device="cuda:1") == other
    assert draw() != first
    assert torch.cuda.initial_seed() == 3
    state = torch.cuda.get_rng_state()
    assert state.dtype == torch.uint8
    assert not state.is_cuda
    again = draw()
    torch.cuda.set_rng_state(state)
    assert draw() == again
    states = torch.cuda.get_rng_state_all()
    assert len(states) == DEVICES
    torch.cuda.set_rng_state_all(states)
    before = torch.cuda.get_rng_state()
    with torch.random.fork_rng():
        draw()
        draw(device="cuda:1")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.cuda.seed_all()
    assert torch.cuda.initial_seed() != 3

    mine = torch.Generator(device="cuda").manual_seed(3)
    assert mine.device == torch.device("cuda:0")
    assert mine.initial_seed() == 3
    assert draw(mine) == first
    kept = mine.get_state()
    again = draw(mine)
    mine.set_state(kept)
    assert draw(mine) == again
    copy = mine.clone_state() if hasattr(mine, "clone_state") else None
    assert copy is None or draw(copy) == draw(mine)
    assert mine.seed() == mine.initial_seed()
    assert torch.cuda.default_generators[1].device == torch.device("cuda:1")
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())
    with pytest.raises(RuntimeError):
        torch.rand(2, device="cuda:0", generator=torch.Generator(device="cuda:1"))


def test_accelerator():
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("cuda")
    assert torch.accelerator.device_count() == DEVICES
    torch.accelerator.set_device_index(1)
    assert torch.accelerator.current_device_index() == 1
    torch.accelerator.set_device_index(0)
    x = torch.ones(1 << 20, device=torch.accelerator.current_accelerator())
    torch.accelerator.synchronize()
    assert torch.accelerator.memory_allocated() >= x.nbytes
    assert torch.accelerator.max_memory_allocated() >= x.nbytes
    assert torch.accelerator.memory_reserved() >= x.nbytes
    assert torch.accelerator.memory_stats()["allocated_bytes.all.current"] >= x.nbytes
    torch.accelerator.reset_peak_memory_stats()
    torch.accelerator.empty_cache()
    assert torch.accelerator.current_stream().stream_id == torch.cuda.current_stream().stream_id
    assert torch.accelerator.get_memory_info()[1] > 0


UNAVAILABLE = {
    "CUDAPluggableAllocator": lambda: torch.cuda.memory.CUDAPluggableAllocator("libc.so.6", "malloc", "free"),
    "current_blas_handle": lambda: torch.cuda.current_blas_handle(),
    "set_sync_debug_mode": lambda: torch.cuda.set_sync_debug_mode("warn"),
    "tunable": lambda: torch.cuda.tunable.enable(True),
    "utilization": lambda: torch.cuda.utilization(),
    "process": lambda: torch.ones(2, device="cuda").untyped_storage()._share_cuda_(),
}


@pytest.mark.parametrize("what", UNAVAILABLE)
def test_what_is_not_there_says_so(what):
    with pytest.raises(NotImplementedError, match=f"{what}.* is not available on a Waldo device: ."):
        UNAVAILABLE[what]()


def test_backends_answer():
    assert torch.backends.cudnn.is_available()
    assert torch.backends.cudnn.version() > 0
    assert torch.backends.cudnn.enabled
    with torch.backends.cudnn.flags(enabled=False, benchmark=True):
        assert not torch.backends.cudnn.enabled
    torch.backends.cuda.matmul.allow_tf32 = False
    assert torch.backends.cuda.preferred_linalg_library() is not None
    assert torch.backends.cuda.cufft_plan_cache[1].max_size == 4096
    torch.backends.cuda.cufft_plan_cache[1].max_size = 7
    assert [torch.backends.cuda.cufft_plan_cache[i].max_size for i in range(2)] == [4096, 7]
    assert torch.backends.cuda.cufft_plan_cache.size == 0
    assert not torch.cuda.is_current_stream_capturing()
    assert not torch.cuda.tunable.is_enabled()
    torch.cuda.nvtx.range_push("x")
    torch.cuda.nvtx.range_pop()
    with torch.cuda.nvtx.range("y"):
        torch.cuda.nvtx.mark("z")
    torch.cuda.profiler.start()
    torch.cuda.profiler.stop()
    assert torch.cuda.cudart().cudaGetErrorString(torch.cuda.cudart().cudaError.success) == "no error"


def test_an_rnn_warns_of_nothing(recwarn):
    torch.nn.LSTM(3, 4).cuda()
    assert not [w for w in recwarn if "cudnn" in str(w.message).lower()]


def test_legacy_types():
    x = torch.cuda.FloatTensor([1, 2])
    assert x.device.type == "cuda"
    assert x.tolist() == [1, 2]
    assert torch.cuda.LongTensor(2, 3).shape == (2, 3)
    assert torch.cuda.LongTensor(2, 3).dtype == torch.int64
    assert isinstance(x, torch.cuda.FloatTensor)
    assert not isinstance(x, torch.cuda.LongTensor)
    assert not isinstance(x.cpu(), torch.cuda.FloatTensor)
    assert x.type() == "torch.cuda.FloatTensor"
    assert x.double().type() == "torch.cuda.DoubleTensor"
    assert torch.ones(2).type("torch.cuda.FloatTensor").is_cuda
    assert torch.ones(2).type(torch.cuda.DoubleTensor).dtype == torch.float64
    torch.set_default_tensor_type("torch.cuda.FloatTensor")
    try:
        assert torch.ones(2).is_cuda
    finally:
        torch.set_default_tensor_type("torch.FloatTensor")
    assert not torch.ones(2).is_cuda


def test_comm():
    import torch.cuda.comm

    x = torch.arange(8.0).cuda()
    copies = torch.cuda.comm.broadcast(x, [0, 1])
    assert [c.device.index for c in copies] == [0, 1]
    parts = torch.cuda.comm.scatter(x, [0, 1])
    assert [p.tolist() for p in parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.cuda.comm.gather(parts, destination=1).tolist() == x.tolist()
    assert torch.cuda.comm.reduce_add([copies[0], copies[1]], destination=0).tolist() == (2 * x).tolist()
    assert torch.cuda.comm.broadcast_coalesced([x, x + 1], [0, 1])[1][1].tolist() == (x + 1).tolist()


def test_data_parallel_equals_one_device():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    data = torch.randn(6, 4)
    expected = model(data)
    expected.sum().backward()
    gradient = model.weight.grad.clone()
    model.zero_grad()
    parallel = torch.nn.DataParallel(model.cuda())
    result = parallel(data.cuda())
    result.sum().backward()
    torch.testing.assert_close(result.cpu(), expected)
    torch.testing.assert_close(model.weight.grad.cpu(), gradient)


def test_pinned_memory():
    x = torch.arange(5.0)
    assert not x.is_pinned()
    pinned = x.pin_memory()
    assert pinned.is_pinned()
    assert pinned[2:].is_pinned()
    assert torch.equal(pinned, x)
    assert pinned.to("cuda", non_blocking=True).tolist() == x.tolist()
    assert torch.empty(3, pin_memory=True).is_pinned()


def test_profiler_sees_the_device():
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        (torch.ones(4, device="cuda") + 1).sum().item()
    assert any("add" in event.key for event in profile.key_averages())


@pytest.mark.parametrize(("name", "opened"), [("trace.json", open), ("trace.json.gz", gzip.open)])
def test_an_exported_timeline_has_a_row_per_worker(tmp_path, name, opened):
    """Goal: what ran on the workers, in order and not before it was called."""
    with torch.profiler.profile() as profile:
        for device in range(DEVICES):
            with torch.cuda.device(device):
                x = torch.randn(300, 300, device="cuda")
                (x @ x).relu().sum().item()
    profile.export_chrome_trace(str(tmp_path / name))
    with opened(tmp_path / name, "rt") as file:
        events = json.load(file)["traceEvents"]
    called = [event["ts"] for event in events if event.get("cat") == "cpu_op"]
    for device in range(DEVICES):
        row = [event for event in events if event.get("cat") == "kernel" and event["pid"] == device]
        product, relu = (next(event for event in row if event["name"] == name) for name in ("aten::mm", "aten::relu"))
        assert product["dur"] > 0
        assert product["ts"] + product["dur"] <= relu["ts"] + relu["dur"]
        assert min(event["ts"] for event in row) >= min(called)


def test_the_profiler_has_the_workers_times():
    """Goal: by default too, as with a GPU: device times are what the operators took, not what recording them took."""
    assert torch.profiler.ProfilerActivity.CUDA in torch.profiler.supported_activities()
    x = torch.randn(400, 400, device="cuda")
    torch.cuda.synchronize()
    with torch.profiler.profile() as profile:
        for _ in range(3):
            x @ x
        torch.cuda.synchronize()
    (products,) = (event for event in profile.key_averages() if event.key == "aten::mm")
    assert products.count == 3
    assert products.self_device_time_total > products.self_cpu_time_total > 0
    assert "CUDA total" in profile.key_averages().table()
