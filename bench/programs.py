"""The parts of figures.py that run inside one process under `waldo run`: python programs.py NAME, one JSON line out.

Everything that is compared is measured in the same process, in interleaved pairs, so that a busy machine slows both
sides alike; what is printed is the median over the pairs.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn


def small_cnn(device):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10)
    ).to(device)
    return model, torch.randn(16, 1, 8, 8).to(device), torch.randint(10, (16,)).to(device)


def large_cnn(device):
    """A step of 20 ms and more on two CPU cores."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    ).to(device)
    return model, torch.randn(16, 3, 32, 32).to(device), torch.randint(10, (16,)).to(device)


class Trainer:
    def __init__(self, parts, lr=0.01):
        self.model, self.x, self.y = parts
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)

    def step(self):
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def pairs(ours, reference, count):
    """Runs both `count` times, taking turns at going first; returns the times of each."""
    times = ([], [])
    for i in range(count):
        for side in (0, 1) if i % 2 else (1, 0):
            times[side].append(timed((ours, reference)[side]))
    return times


def summary(ours, reference, per=1):
    return {
        "ours_s": statistics.median(ours) / per,
        "reference_s": statistics.median(reference) / per,
        "ratio": statistics.median(a / b for a, b in zip(ours, reference, strict=True)),
        "ratio_min": min(a / b for a, b in zip(ours, reference, strict=True)),
        "ratio_max": max(a / b for a, b in zip(ours, reference, strict=True)),
        "pairs": len(ours),
    }


def waits():
    """Exact counts of 50 steps after 10, without and with a read of the loss."""
    import waldo

    trainer, out = Trainer(small_cnn("cuda")), {}
    for name, read in (("silent", False), ("read", True)):
        for i in range(60):
            if i == 10:
                torch.cuda.synchronize()
                before = waldo.stats()
            loss = trainer.step()
            if read:
                loss.item()
        after = waldo.stats()
        out[name] = {
            key: (after[key] - before[key]) / 50 for key in ("waits", "calls", "messages", "bytes_up", "bytes_down")
        }
    return out


def add():
    """`a + b` of 8 x 64 floats from Python: a thousand at a time, then the worker catches up outside the clock."""
    sides, count = [], 1000
    for device in ("cuda", "cpu"):
        a, b = torch.randn(8, 64).to(device), torch.randn(8, 64).to(device)

        def loop(a=a, b=b):
            for _ in range(count):
                a + b

        sides.append(loop)
    with torch.no_grad():
        for loop in sides:
            for _ in range(5):
                loop()
        ours, reference = [], []
        for i in range(60):
            for side in (0, 1) if i % 2 else (1, 0):
                (ours, reference)[side].append(timed(sides[side]))
                torch.cuda.synchronize()
    return summary(ours, reference, count)


def cnn():
    """Five steps of the large CNN, then a synchronize, against five on the CPU."""
    sides, count = [], 5
    for device in ("cuda", "cpu"):
        trainer = Trainer(large_cnn(device))

        def loop(trainer=trainer, device=device):
            for _ in range(count):
                trainer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        for _ in range(3):
            loop()
        sides.append(loop)
    return summary(*pairs(*sides, 12), count)


def transfer():
    """256 MiB up and down against a clone() of the same tensor."""
    x = torch.randn(64 << 20)
    there = x.cuda()
    out = {}

    def up():
        x.cuda()
        torch.cuda.synchronize()

    for name, ours in (("upload", up), ("download", lambda: there.cpu())):
        for _ in range(2):
            ours()
            x.clone()
        result = summary(*pairs(ours, x.clone, 8))
        result["rate_ratio"] = 1 / result["ratio"]
        result["gib_per_s"] = 0.25 / result["ours_s"]
        out[name] = result
    assert torch.equal(x, there.cpu())
    return out


def anonymous_memory(pid="self"):
    """Bytes that belong to this process alone, not to a file it has mapped."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))


def worker_pid():
    """The worker of this session: a sibling, found by its command line."""
    import os

    mine = Path("/proc/self/environ").read_bytes()
    mark = next(part for part in mine.split(b"\0") if part.startswith(b"WALDO_BENCH_MARK="))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if (
                    b"worker" in (folder / "cmdline").read_bytes().split(b"\0")
                    and mark in (folder / "environ").read_bytes()
                ):
                    return int(folder.name)
            except OSError:
                continue
    raise SystemExit("no worker found")


def memory():
    """After 300 steps of the small CNN, everything of it freed again."""
    import gc

    trainer = Trainer(small_cnn("cuda"))
    for _ in range(300):
        trainer.step()
    del trainer
    gc.collect()
    torch.cuda.synchronize()
    tensors = torch.cuda.memory_allocated()
    return {"client": anonymous_memory(), "worker": anonymous_memory(worker_pid()), "tensors": tensors}


def memory_of_plain_torch():
    """What the client is compared with: torch imported, one step of the same optimizer done, which imports more of torch."""
    x = torch.ones(3, requires_grad=True)
    x.sum().backward()
    torch.optim.AdamW([x]).step()
    return {"client": anonymous_memory()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
