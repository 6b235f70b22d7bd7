"""Prints the table of figures that README.md here explains: python bench/figures.py [--json FILE] [--only NAME …]"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
MIB = 1 << 20
STARTED = "import torch; print(torch.ones(2, device='cuda'))"


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WALDO_")}
    return clean | {"WALDO_BENCH_MARK": uuid.uuid4().hex} | {k: str(v) for k, v in more.items()}


def output_of(*command, **more):
    ran = subprocess.run([str(word) for word in command], env=environment(**more), text=True, capture_output=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {ran.returncode}\n{ran.stderr}")
    return ran.stdout


def program(name):
    return json.loads(output_of(BIN / "waldo", "run", HERE / "programs.py", name).splitlines()[-1])


def waits():
    counts = program("waits")
    text = ", ".join(f"{round(counts['silent'][k])} {k}" for k in ("calls", "messages", "bytes_up"))
    yield (
        "waits per training step without a read",
        counts["silent"]["waits"],
        "= 0",
        counts["silent"]["waits"] == 0,
        text,
    )
    yield (
        "waits per training step with one loss.item()",
        counts["read"]["waits"],
        "= 1",
        counts["read"]["waits"] == 1,
        "",
    )


def add():
    r = program("add")
    text = f"{r['ours_s'] * 1e6:.2f} µs against {r['reference_s'] * 1e6:.2f} µs on the CPU"
    yield "a + b from Python, plan hit, × the CPU line", r["ratio"], "≤ 1.0", r["ratio"] <= 1.0, text


def cpp():
    """bench/op_latency, built beside the package's own objects by `make bench` and `make test`."""
    library = next((BIN.parent / "lib").glob("python3*/site-packages/waldo"))
    command = [HERE.parent / "build" / "release" / "bench" / "op_latency", "--json"]
    lines = [json.loads(line) for line in output_of(*command, WALDO_PACKAGE_DIR=library).splitlines()]
    for r in lines[1:]:
        text = f"{r['ns']:.0f} ns against {lines[0]['ns']:.0f} ns"
        yield (
            f"{r['name']} in C++, plan hit, × an empty boxed kernel",
            r["times_empty"],
            "≤ 4",
            r["times_empty"] <= 4,
            text,
        )


def cnn():
    r = program("cnn")
    text = f"{r['ours_s'] * 1e3:.1f} ms against {r['reference_s'] * 1e3:.1f} ms; pairs {r['ratio_min']:.2f} … {r['ratio_max']:.2f}"
    yield "compute-bound CNN step, × plain CPU PyTorch", r["ratio"], "≤ 1.10", r["ratio"] <= 1.10, text


def start():
    times = ([], [])
    commands = ((BIN / "waldo", "run", "-c", STARTED), (sys.executable, "-c", "import torch"))
    for i in range(8):
        for side, command in enumerate(commands):
            begin = time.perf_counter()
            output_of(*command)
            if i:
                times[side].append(time.perf_counter() - begin)
    beyond = statistics.median(a - b for a, b in zip(*times, strict=True))
    text = f"{statistics.median(times[0]):.2f} s against {statistics.median(times[1]):.2f} s"
    yield "start-up to the first printed tensor, s beyond import torch", beyond, "≤ 0.5", beyond <= 0.5, text


def transfer():
    for name, r in program("transfer").items():
        text = f"{r['gib_per_s']:.2f} GiB/s; clone() {0.25 / r['reference_s']:.2f} GiB/s"
        yield f"{name} of 256 MiB, × the rate of clone()", r["rate_ratio"], "≥ 0.4", r["rate_ratio"] >= 0.4, text


ANONYMOUS = "sum(int(l.split()[1]) << 10 for l in open('/proc/self/status') if l.startswith(('RssAnon', 'RssShmem')))"


def memory():
    """The worker against a process that has only loaded libtorch; the client against one that has only imported torch."""
    ours = program("memory")
    plain = json.loads(output_of(sys.executable, HERE / "programs.py", "memory_of_plain_torch"))
    load = "import ctypes, importlib.util as u; ctypes.CDLL(u.find_spec('torch').submodule_search_locations[0] + '/lib/libtorch_cpu.so')"
    empty = int(output_of(sys.executable, "-c", f"import ctypes, importlib.util; print({ANONYMOUS})"))
    libtorch = int(output_of(sys.executable, "-c", f"{load}; print({ANONYMOUS})")) - empty
    worker = (ours["worker"] - libtorch - ours["tensors"]) / MIB
    client = (ours["client"] - plain["client"]) / MIB
    yield (
        "worker memory beyond tensors and libtorch, MiB",
        worker,
        "≤ 64",
        worker <= 64,
        f"libtorch {libtorch / MIB:.0f} MiB",
    )
    yield "client memory beyond torch, MiB", client, "≤ 64", client <= 64, f"torch {plain['client'] / MIB:.0f} MiB"


FIGURES = {"waits": waits, "add": add, "cpp": cpp, "cnn": cnn, "start": start, "transfer": transfer, "memory": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="NAME")
    args = parser.parse_args()
    rows = []
    print(f"{'what':66}{'measured':>10}  {'target':8}{'':5}")
    for name in args.only:
        for what, value, target, reached, text in FIGURES[name]():
            rows.append(
                {"figure": name, "what": what, "measured": value, "target": target, "reached": reached, "text": text}
            )
            print(f"{what:66}{value:>10.2f}  {target:8}{'ok' if reached else 'NO':5}{text}", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
