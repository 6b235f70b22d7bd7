"""Command line of the sweep: shards that can be resumed, a progress bar, a table by class of failure, JSON."""

import argparse
import hashlib
import importlib.util
import json
import re
import signal
import sys
import time
from pathlib import Path

from . import sweep
from .report import describe, key_of, layers, read, show, table

HERE = Path(__file__).parent
PHASES = ("forward", "backward", "out", "inplace", "noncontiguous", "errors")
DTYPES = ("float32", "bfloat16", "float16", "int64", "bool", "complex64")


def arguments():
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--suites", default="op", help="op,module,optim")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--match", help="only variants whose name matches this expression wholly")
    parser.add_argument("--shards", type=int, default=1, help="parts, each with a file of results of its own")
    parser.add_argument("--shard", type=int, help="only this one, from 0; all of them unless told")
    parser.add_argument("--processes", type=int, default=1, help="that try variants side by side")
    parser.add_argument("--samples-max", type=int, help="of each variant (all of them unless told)")
    parser.add_argument("--seconds", type=float, default=300, help="for one variant; more is a hang")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/conformance"), help="for results, a line of JSON each"
    )
    parser.add_argument("--again", action="store_true", help="do not resume: forget the results that are there")
    parser.add_argument("--report", type=Path, nargs="*", help="run nothing: the table of these files")
    parser.add_argument("--show", help="print findings of this class, or all")
    parser.add_argument("--every", type=int, default=1, help="only every N-th variant")
    parser.add_argument("--layers", action="store_true", help="print which layer told what each operator makes")
    return parser.parse_args()


def cannot(path=HERE / "cannot.txt"):
    """{(name, dtype): reason}"""
    listed = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, dtype, reason = line.split(None, 2)
            listed[name, dtype] = reason
    return listed


def progress(done, total, failed, start):
    if not sys.stderr.isatty():
        return
    width = 30
    filled = width * done // max(total, 1)
    left = (time.monotonic() - start) / max(done, 1) * (total - done)
    print(f"\r{'━' * filled}{'─' * (width - filled)} {done}/{total} · {failed} failed · {left:.0f} s left ",
          end="", file=sys.stderr)  # fmt: skip


def stamp():
    """Names what is tested: results of another build or of another driver are not resumed."""
    package = Path(importlib.util.find_spec("waldo").origin).parent
    files = [*HERE.glob("*.py"), *package.rglob("*.so"), *package.rglob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # children end with us
    options = arguments()
    if options.report is not None:
        results = list(read(options.report).values())
        print_all(results, options)
        return verdict(results, cannot(), whole=False)
    options.folder.mkdir(parents=True, exist_ok=True)
    suites, dtypes = options.suites.split(","), options.dtypes.split(",")
    with (options.folder / "log").open("a") as log:
        variants = sweep.ask(log, {"list": True, "suites": suites, "dtypes": dtypes})
        if options.match:
            variants = [v for v in variants if re.fullmatch(options.match, v[1])]
        variants = variants[:: options.every]
        wanted = []
        for shard in range(options.shards) if options.shard is None else [options.shard]:
            path = options.folder / f"shard-{shard}-of-{options.shards}.json"
            wanted += run_shard(variants[shard :: options.shards], path, options, log)
    print_all(wanted, options)
    return verdict(wanted, cannot(), whole=set(PHASES) <= set(options.phases.split(",")))


def run_shard(variants, path, options, log):
    """Results of the variants, those from `path` that are still good among them; the others are added to it."""
    now, listed = stamp(), cannot()
    if options.again:
        path.unlink(missing_ok=True)
    results = {key: r for key, r in read([path]).items() if r["stamp"] == now and r["phases"] == options.phases}
    jobs = [
        {
            "suite": suite,
            "name": name,
            "dtype": dtype,
            "phases": options.phases.split(","),
            # What is listed is tried wholly, so that a sample does not say that it passes.
            "samples_max": None if (name, dtype) in listed else options.samples_max,
        }
        for suite, name, dtype in variants
        if (suite, name, dtype) not in results
    ]
    start, done, failed = time.monotonic(), 0, 0
    with path.open("a", buffering=1) as out:

        def on_answer(answer):
            nonlocal done, failed
            done, failed = done + 1, failed + bool(answer["findings"])
            answer |= {"found": len(answer["findings"]), "findings": answer["findings"][:20]}
            results[key_of(answer)] = answer
            print(json.dumps(answer | {"stamp": now, "phases": options.phases}), file=out)
            progress(done, len(jobs), failed, start)

        sweep.run(jobs, options.processes, log, on_answer, options.seconds)
    if jobs:
        print(file=sys.stderr)
    return [results[tuple(v)] for v in variants]


def print_all(results, options):
    if options.show:
        show(results, options.show)
    elif options.layers:
        layers(results)
    else:
        table(results)


def verdict(results, listed, whole):
    """0 when all that fails is listed in cannot.txt and nothing listed passes."""
    code = 0
    for result in results:
        known = (result["name"], result["dtype"]) in listed
        if result["findings"] and not known:
            for finding in result["findings"][:3]:
                print(f"not listed: {describe(result, finding)}")
            code = 1
        if not result["findings"] and known and whole:
            print(f"{result['name']} {result['dtype']} passes: remove it from cannot.txt")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
