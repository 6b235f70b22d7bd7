"""Counts need no clock: waits, calls and bytes of a step are exact, and each wait names the program's line."""

import json

import pytest
from support import waldo_run, with_stats

STEPS = """
import sys
import torch
from torch import nn

steps, read = int(sys.argv[1]), sys.argv[2] == "read"
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).cuda()
optimizer = torch.optim.{optimizer}
x, y = torch.randn(8, 1, 8, 8).cuda(), torch.randint(10, (8,)).cuda()
for _ in range(steps):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if read:
        loss.item()  # the line
torch.cuda.synchronize()
"""
OPTIMIZERS = {
    "sgd": "SGD(model.parameters(), lr=0.1, momentum=0.9)",
    "adamw": "AdamW(model.parameters())",
    "fused": "AdamW(model.parameters(), fused=True)",
}


def stats_of(tmp_path, program, steps, read):
    return with_stats(tmp_path, program, steps, read)[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("read", "waits"), [("silent", 0), ("read", 1)])
def test_waits_per_step(tmp_path, script, optimizer, read, waits):
    """Goal: a step without a read never waits, a step with one loss.item() waits once.

    Method: the difference between 30 and 10 steps, so that start-up and first plans do not count.
    """
    program = script(STEPS.replace("{optimizer}", OPTIMIZERS[optimizer]))
    few, many = (stats_of(tmp_path, program, steps, read) for steps in (10, 30))
    assert many["waits"] - few["waits"] == 20 * waits
    assert many["plans"] == few["plans"], "plans were still being made after ten steps"
    assert many["calls"] > few["calls"]


def test_a_wait_names_the_line(tmp_path, script):
    """Goal: waits_at points at loss.item() in the user's file, with its count and its time."""
    program = script(STEPS.replace("{optimizer}", OPTIMIZERS["sgd"]))
    stats = stats_of(tmp_path, program, 12, "read")
    line = 1 + program.read_text().splitlines().index("        loss.item()  # the line")
    (place,) = [p for p in stats["waits_at"] if p["line"] == line]
    assert place["file"] == str(program)
    assert place["count"] == 12
    assert 0 < place["seconds"] < 60
    assert sum(p["count"] for p in stats["waits_at"]) == stats["waits"]


def test_the_keys_of_the_statistics(tmp_path, script):
    """Goal: the keys that programs may rely on are there, as numbers."""
    _, stats = with_stats(tmp_path, script("import torch\nprint(torch.ones(3, device='cuda').sum().item())\n"))
    for key in ("calls", "messages", "waits", "bytes_up", "bytes_down"):
        assert isinstance(stats[key], int)
        assert stats[key] > 0
    assert set(stats["waits_at"][0]) >= {"file", "line", "count", "seconds"}


def test_bytes_up_and_down_are_the_tensors(tmp_path, script):
    """Goal: what travels is the tensor and little else."""
    program = script("import sys, torch\nn = int(sys.argv[1])\ntorch.ones(n, dtype=torch.uint8).cuda().cpu()\n")
    small, large = (with_stats(tmp_path, program, n)[1] for n in (1 << 10, 9 << 20))
    for key in ("bytes_up", "bytes_down"):
        extra = large[key] - small[key] - ((9 << 20) - (1 << 10))
        assert 0 <= extra < 16 << 10, key


def test_the_content_of_an_embedded_worker_takes_shared_memory(script):
    """Goal: more than the memory holds goes up and down unchanged, and nobody else can open that memory any more."""
    program = script(
        "import os, torch\n"
        "x = torch.randint(256, (40 << 20,), dtype=torch.uint8)\n"
        "assert torch.equal(x.cuda().cpu(), x)\n"
        "print(open('/proc/self/maps').read().count('/memfd:waldo'))\n"
        "print(sum('memfd:waldo' in os.readlink(f.path) for f in os.scandir('/proc/self/fd') if os.path.lexists(f.path)))\n"
    )
    assert waldo_run(program).ok().stdout == "1\n0\n"


def test_the_table_goes_to_stderr(script):
    """Goal: `--stats` prints its table on stderr at the end; stdout stays the program's."""
    ran = waldo_run(
        script("import torch\nprint(torch.ones(3, device='cuda').sum().item())\n"), options=["--stats"]
    ).ok()
    assert ran.stdout == "3.0\n"
    assert "waits" in ran.stderr
    assert "program.py:2" in ran.stderr


def test_nothing_is_said_without_use(tmp_path, script):
    """Goal: a program that never asks for a device sends nothing."""
    _, stats = with_stats(tmp_path, script("import torch\nprint(torch.ones(3).sum().item())\n"))
    assert (
        json.dumps({k: stats[k] for k in ("calls", "waits", "bytes_up")}) == '{"calls": 0, "waits": 0, "bytes_up": 0}'
    )
