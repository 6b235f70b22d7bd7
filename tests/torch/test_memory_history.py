"""torch.cuda.memory's history of allocations: what it keeps, and that PyTorch's own viewers read it."""

import inspect
import pickle
import threading

import pytest
import torch
from torch.cuda import _memory_viz as viz


@pytest.fixture
def recording():
    """Starts a history; whatever a test kept is forgotten."""
    yield lambda enabled="all", **options: torch.cuda.memory._record_memory_history(enabled, stacks="python", **options)
    torch.cuda.memory._record_memory_history(enabled=None)


def made_here(size):
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def trace(device=0, action=None):
    entries = torch.cuda.memory._snapshot()["device_traces"][device]
    return [entry for entry in entries if action in (None, entry["action"])]


def names(entry):
    return [frame["name"].split(".")[-1] for frame in entry["frames"]]


def test_a_life_has_three_entries(recording):
    recording()
    x = made_here(1000)
    address = x.data_ptr()
    del x
    torch.cuda.synchronize()
    mine = [entry for entry in trace() if entry.get("addr") == address]
    assert [entry["action"] for entry in mine] == ["alloc", "free_requested", "free_completed"]
    assert [entry["size"] for entry in mine] == [1000] * 3
    times = [entry["time_us"] for entry in mine]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000_000_000
    alloc, requested, completed = mine
    (line,) = [frame for frame in alloc["frames"] if frame["name"].endswith("made_here")]
    assert line["filename"] == __file__
    assert line["line"] == inspect.getsourcelines(made_here)[1] + 1
    assert "made_here" not in names(requested)
    assert names(requested)[0] == names(completed)[0] == "test_a_life_has_three_entries"


def test_every_way_to_take_memory_is_seen(recording):
    """Goal: outputs that are foretold, asked for, several of one call, grown, and of the second device."""
    x = torch.arange(100.0, device="cuda")
    recording()
    kept = [x + 1, x[x > 50].clone(), *torch.sort(x), x.to("cuda:1")]
    grown = torch.empty(4, device="cuda")
    before = grown.data_ptr()
    grown.resize_(4000)
    for device in (0, 1):
        addresses = {entry["addr"] for entry in trace(device, "alloc")}
        assert {y.data_ptr() for y in kept if y.device.index == device} <= addresses
    assert {before, grown.data_ptr()} <= {entry["addr"] for entry in trace(0, "alloc")}
    assert before in {entry["addr"] for entry in trace(0, "free_completed")}
    for entry in trace(0, "alloc"):
        assert "test_every_way_to_take_memory_is_seen" in names(entry)


def test_trace_and_snapshot_agree(recording):
    recording()
    kept = [made_here(size) for size in (1, 600, 3 << 20)]
    kept.append(kept[0] + kept[0])
    del kept[1]
    with torch.cuda.stream(torch.cuda.Stream()):
        elsewhere = made_here(77)
        stream = torch.cuda.current_stream().cuda_stream
    snapshot = torch.cuda.memory._snapshot()
    living = {}
    for entry in snapshot["device_traces"][0]:
        if entry["action"] == "alloc":
            living[entry["addr"]] = entry
        elif entry["action"] == "free_completed":
            living.pop(entry["addr"], None)
    blocks = {segment["address"]: segment for segment in snapshot["segments"] if segment["device"] == 0}
    assert {tensor.data_ptr() for tensor in kept} <= set(living) <= set(blocks)
    for address, entry in living.items():
        (block,) = blocks[address]["blocks"]
        assert block["requested_size"] == entry["size"]
        assert block["frames"] == entry["frames"] != []
        assert blocks[address]["stream"] == entry["stream"]
    assert blocks[elsewhere.data_ptr()]["stream"] == stream != 0
    assert torch.cuda.memory_snapshot() == snapshot["segments"]


def test_the_viewers_read_it(recording, tmp_path):
    made_here(5)  # freed or not, it was taken before
    recording()
    x = made_here(30 << 20)
    y = x + 1
    del x
    file = tmp_path / "snapshot.pickle"
    torch.cuda.memory._dump_snapshot(str(file))
    with file.open("rb") as opened:
        snapshot = pickle.load(opened)
    assert "= seg_" in viz.trace(snapshot)
    assert "30.0MiB" in viz.trace(snapshot)
    assert "segments: " in viz.segsum(snapshot)
    flame = viz.memory(snapshot, format_flamegraph=lambda text: text)
    assert f"test_memory_history.py:{inspect.currentframe().f_code.co_firstlineno + 4}:" in flame
    assert viz.segments(snapshot, format_flamegraph=lambda text: text)
    for page in (viz.segment_plot(snapshot), viz.trace_plot(snapshot), viz.trace_plot(snapshot, plot_segments=True)):
        assert "MemoryViz.js" in page
    kept = viz.filter_alloc_free_pairs(snapshot)["device_traces"][0]
    assert y.data_ptr() in {entry.get("addr") for entry in kept}
    del y


@pytest.mark.parametrize(
    ("context", "of_alloc", "of_free", "of_block"),
    [
        (None, False, False, False),
        ("state", False, False, True),
        ("alloc", True, "as taken", True),
        ("all", True, True, True),
    ],
)
def test_context_says_whose_frames(recording, context, of_alloc, of_free, of_block):
    recording(context=context)
    x, y = made_here(100), made_here(200)
    gone = x.data_ptr()
    del x
    snapshot = torch.cuda.memory._snapshot()
    mine = {entry["action"]: entry for entry in snapshot["device_traces"][0] if entry.get("addr") == gone}
    assert ("made_here" in names(mine["alloc"])) == of_alloc
    freed = names(mine["free_requested"])
    assert ("made_here" in freed) == (of_free == "as taken")
    assert bool(freed) == bool(of_free)
    (segment,) = [segment for segment in snapshot["segments"] if segment["address"] == y.data_ptr()]
    assert bool(segment["blocks"][0]["frames"]) == of_block
    assert bool(torch._C._cuda_allocationTraceback(y.data_ptr())) == of_block
    assert torch._C._cuda_allocationTraceback(gone) is None


def test_only_the_newest_entries_are_kept(recording):
    recording(max_entries=4)
    kept = [made_here(size) for size in range(1, 8)]
    entries = torch.cuda.memory._snapshot()["device_traces"][0]
    assert [entry["action"] for entry in entries] == ["alloc"] * 3 + ["snapshot"]
    assert [entry["size"] for entry in entries[:3]] == [5, 6, 7]
    recording("state")
    assert len(trace()) == 1
    assert torch._C._cuda_allocationTraceback(kept[0].data_ptr())


def test_what_is_kept_is_forgotten_when_told(recording):
    assert not torch._C._cuda_isHistoryEnabled()
    recording()
    assert torch._C._cuda_isHistoryEnabled()
    made_here(10)
    recording(clear_history=True)
    assert not trace(action="alloc")
    made_here(10)
    recording()
    assert len(trace(action="alloc")) == 1
    recording(enabled=None)
    made_here(10)
    assert not trace()
    assert all(not segment["frames"] for segment in torch.cuda.memory_snapshot())
    recording(skip_actions=["free_requested", "snapshot"])
    made_here(10)
    torch.cuda.synchronize()
    assert [entry["action"] for entry in trace()] == ["alloc", "free_completed"]


def test_labels_and_the_older_form(recording):
    torch.cuda.memory._record_memory_history(True, trace_alloc_max_entries=100, trace_alloc_record_context=True)
    if not hasattr(torch.cuda.memory, "_set_memory_metadata"):
        pytest.skip("this PyTorch has no labels")
    torch.cuda.memory._set_memory_metadata("warm-up")
    x = made_here(10)
    assert torch.cuda.memory._get_memory_metadata() == "warm-up"
    torch.cuda.memory._set_memory_metadata("")
    y = made_here(10)
    assert [entry["user_metadata"] for entry in trace(action="alloc")] == ["warm-up", ""]
    assert "made_here" in names(trace(action="alloc")[0])
    torch.cuda.memory._record_memory_history(False)
    assert not trace()
    del x, y


def test_no_room_is_an_entry_and_is_told(recording):
    seen = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *told: seen.append(told))
    recording()
    torch.cuda.set_per_process_memory_fraction(0.5)
    try:
        before = torch.cuda.memory_stats()["num_ooms"]
        total = torch.cuda.get_device_properties(0).total_memory
        with pytest.raises(torch.OutOfMemoryError):
            made_here(total)
        with pytest.raises(torch.OutOfMemoryError):
            made_here(1).expand(total) + 1
        assert torch.cuda.memory_stats()["num_ooms"] == before + 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    (first, second) = trace(action="oom")
    assert (first["size"], second["size"]) == (total, total)
    assert 0 < first["device_free"] <= total // 2
    assert "made_here" in names(first)
    assert [(device, size) for device, size, _, _ in seen] == [(0, total)] * 2
    made_here(10)  # and there is room again


def test_threads_and_backward(recording):
    """Goal: threads that make and drop tensors while a history is kept neither wait for one another nor lose entries."""
    recording()
    model = torch.nn.Linear(8, 8, device="cuda")

    def work():
        for _ in range(50):
            model(torch.ones(4, 8, device="cuda")).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        torch.cuda.memory._snapshot()
    for thread in threads:
        thread.join()
    entries = trace()
    alive = {}
    for entry in entries:
        if entry["action"] == "alloc":
            assert alive.setdefault(entry["addr"], entry) is entry
        elif entry["action"] == "free_completed":
            alive.pop(entry["addr"], None)
    assert len([entry for entry in entries if entry["action"] == "alloc"]) > 4 * 50 * 3
    assert {model.weight.data_ptr(), model.bias.grad.data_ptr()} <= set(alive)


def test_frames_of_cpp_too():
    torch.cuda.memory._record_memory_history()
    try:
        x = made_here(12)
        (entry,) = trace(action="alloc")
        found = names(entry)
        assert "made_here" in found
        assert len(found) > found.count("<module>") + 10
        del x
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


@pytest.mark.parametrize("wrong", [{"enabled": "some"}, {"context": "none"}, {"stacks": "rust"}])
def test_other_words_are_refused(wrong):
    with pytest.raises(RuntimeError, match="expected"):
        torch.cuda.memory._record_memory_history(**wrong)
    assert not torch._C._cuda_isHistoryEnabled()
