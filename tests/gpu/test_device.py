"""Memory, streams, events and reads of the CUDA worker."""

import subprocess
import sys
import time

import pytest
import torch
import waldo
from support import clean_environment


def test_the_device_is_the_one_that_is_there(gpu):
    code = (
        "import torch; p = torch.cuda.get_device_properties(0); print(p.name, p.total_memory, p.multi_processor_count)"
    )
    plain = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean_environment()
    )
    ours = torch.cuda.get_device_properties(0)
    assert plain.stdout.strip() == f"{ours.name} {ours.total_memory} {ours.multi_processor_count}"


def test_too_much_is_refused_at_the_line_and_leaves_the_rest():
    """Goal: torch.OutOfMemoryError where the tensor is made, with the device's sizes, and everything else as it was."""
    kept = torch.arange(1000.0, device="cuda")
    before, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError, match="GiB"):
        torch.empty(total, dtype=torch.int16, device="cuda")
    assert torch.cuda.memory_allocated() == before
    assert kept.sum().item() == 499500


def test_memory_that_runs_out_within_an_operator(gpu):
    """Goal: an operator whose own workspace does not fit fails like a local one: parameters keep their values."""
    free, _ = torch.cuda.mem_get_info()
    weight = torch.ones(1000, device="cuda")
    hog = torch.empty(int(free * 0.9), dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        for _ in range(8):
            weight.add_(torch.ones(int(free * 0.05) // 4, device="cuda").sort()[0][0] * 0 + 1)
        torch.cuda.synchronize()
    del hog
    torch.cuda.empty_cache()
    assert torch.isfinite(weight).all()
    assert (weight + 1).sum().item() > 1000


def test_figures_of_memory():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    x = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_allocated() == before + (1 << 20)
    del x
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + (1 << 20)
    free, total = torch.cuda.mem_get_info()
    assert 0 < free <= total


def test_events_measure_the_device():
    """Goal: elapsed_time() is the time of the work between the events, not of its being recorded here."""
    x = torch.randn(2048, 2048, device="cuda")
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started = time.perf_counter()
    first.record()
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)
    last.record()
    recorded = time.perf_counter() - started
    last.synchronize()
    whole = time.perf_counter() - started
    assert 0 < first.elapsed_time(last) / 1e3 <= whole * 1.05
    assert recorded < whole


def test_streams_keep_their_order():
    stream = torch.cuda.Stream()
    x = torch.zeros(1 << 20, device="cuda")
    for step in range(10):
        with torch.cuda.stream(stream):
            stream.wait_stream(torch.cuda.default_stream())
            x += 1
        torch.cuda.current_stream().wait_stream(stream)
        x *= 2
        assert x[0].item() == 2 ** (step + 2) - 2


def test_reads_wait_for_their_own_value_only():
    """Goal: a value is read once its producer has run; one wait each, and right ones, with much work queued behind."""
    before = waldo.stats()["waits"]
    values = []
    for i in range(20):
        x = torch.full((512, 512), float(i), device="cuda")
        value = x.mean()
        for _ in range(5):
            x = x @ x * 0
        values.append(value.item())
    assert values == [float(i) for i in range(20)]
    assert waldo.stats()["waits"] - before == 20


def test_content_comes_back_as_it_went():
    for numel in (1, 1000, (5 << 20) + 3):
        host = torch.randint(0, 255, (numel,), dtype=torch.uint8)
        assert torch.equal(host.cuda().cpu(), host)
        assert torch.equal(host.pin_memory().to("cuda", non_blocking=True).cpu(), host)


def test_a_download_is_of_the_moment_it_was_asked_for():
    """Goal: what is written right behind a read is not in it. Method: more bytes than the worker stages at once."""
    there = torch.randint(0, 255, (24 << 20,), dtype=torch.uint8, device="cuda")
    before = there.clone()
    host = torch.empty_like(there, device="cpu", pin_memory=True)
    host.copy_(there, non_blocking=True)
    there.zero_()
    torch.cuda.synchronize()
    assert torch.equal(host, before.cpu())
    assert there.count_nonzero().item() == 0


def test_uploads_keep_their_order():
    """Goal: an upload into memory that queued work still reads, and one into memory that was just given back, disturb
    nothing. Method: the device is kept busy while new values arrive for what it works on."""
    x, sums = torch.zeros(1 << 20, device="cuda"), []
    slow = torch.ones(512, 512, device="cuda")
    for i in range(20):
        slow = slow @ slow * 0 + 1
        x.copy_(torch.full((1 << 20,), float(i)))
        fresh = torch.full((1 << 20,), float(i)).cuda()
        sums.append((x + fresh).double().mean())
        del fresh
    assert [s.item() for s in sums] == [2.0 * i for i in range(20)]
