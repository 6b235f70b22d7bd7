"""Command line of the sweep: shards that can be resumed, a progress bar, a table by class of failure, JSON."""

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

from . import sweep

HERE = Path(__file__).parent
PHASES = ("forward", "backward", "out", "inplace", "noncontiguous", "errors")
DTYPES = ("float32", "bfloat16", "float16", "int64", "bool", "complex64")


def arguments():
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--suites", default="op", help="op,module,optim")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--match", help="only variants whose name matches this expression wholly")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--samples-max", type=int, help="of each variant (all of them unless told)")
    parser.add_argument("--seconds", type=float, default=300, help="for one variant; more is a hang")
    parser.add_argument("--json", type=Path, help="results, one line each; those in it are not run again")
    parser.add_argument("--report", type=Path, nargs="*", help="run nothing: the table of these files")
    parser.add_argument("--show", help="print findings of this class")
    return parser.parse_args()


def cannot(path=HERE / "cannot.txt"):
    """{(name, dtype or "*"): reason}"""
    listed = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, dtype, reason = line.split(None, 2)
            listed[name, dtype] = reason
    return listed


def key_of(result):
    return result["suite"], result["name"], result["dtype"]


def read(paths):
    results = {}
    for path in paths:
        if path.exists():
            for line in path.read_text().splitlines():
                result = json.loads(line)
                results[key_of(result)] = result
    return results


def table(results, file=sys.stdout):
    say = lambda text="": print(text, file=file)
    groups = {}
    for result in results:
        groups.setdefault((result["suite"], result["dtype"]), []).append(result)
    say(f"{'suite':8}{'dtype':11}{'variants':>9}{'equal':>8}{'%':>8}{'samples':>9}{'checks':>9}{'raise':>8}{'conformed':>11}")
    for (suite, dtype), group in sorted(groups.items(), key=lambda g: g[0]):
        equal = sum(not r["findings"] for r in group)
        total = lambda key: sum(r.get(key, 0) for r in group)
        say(
            f"{suite:8}{dtype:11}{len(group):9}{equal:8}{100 * equal / len(group):8.2f}{total('samples'):9}"
            f"{total('checks'):9}{total('both_raise'):8}{total('conforms'):11}"
        )
    kinds, variants = Counter(), {}
    for result in results:
        for finding in result["findings"]:
            kind = (finding["kind"], finding["phase"])
            kinds[kind] += 1
            variants.setdefault(kind, set()).add(key_of(result))
    if kinds:
        say()
        say(f"{'class':16}{'phase':20}{'findings':>9}{'variants':>9}  for instance")
    for (kind, phase), count in sorted(kinds.items(), key=lambda k: -len(variants[k[0]])):
        some = ", ".join(f"{name} {dtype}" for _, name, dtype in sorted(variants[kind, phase])[:3])
        say(f"{kind:16}{phase:20}{count:9}{len(variants[kind, phase]):9}  {some}")


def show(results, kind):
    for result in results:
        for finding in result["findings"]:
            if kind in ("all", finding["kind"]):
                print(result["name"], result["dtype"], finding["phase"], finding["sample"], finding["text"], sep=" | ")


def progress(done, total, failed, start):
    if not sys.stderr.isatty():
        return
    width = 30
    filled = width * done // max(total, 1)
    left = (time.monotonic() - start) / max(done, 1) * (total - done)
    print(f"\r{'━' * filled}{'─' * (width - filled)} {done}/{total} · {failed} failed · {left:.0f} s left ",
          end="", file=sys.stderr)  # fmt: skip


def main():
    options = arguments()
    if options.report is not None:
        results = list(read(options.report).values())
        show(results, options.show) if options.show else table(results)
        return 0
    path = options.json or Path("build/conformance") / f"shard-{options.shard}-of-{options.shards}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    suites, dtypes = options.suites.split(","), options.dtypes.split(",")
    with (path.parent / "conformance.log").open("a") as log:
        variants = sweep.ask(log, {"list": True, "suites": suites, "dtypes": dtypes})
        if options.match:
            variants = [v for v in variants if re.fullmatch(options.match, v[1])]
        variants = variants[options.shard :: options.shards]
        results = read([path])
        jobs = [
            {"suite": s, "name": n, "dtype": d, "phases": options.phases.split(","), "samples_max": options.samples_max}
            for s, n, d in variants
            if (s, n, d) not in results
        ]
        start, failed, total = time.monotonic(), 0, len(jobs)
        done = 0
        with path.open("a", buffering=1) as out:

            def on_answer(answer):
                nonlocal done, failed
                done += 1
                failed += bool(answer["findings"])
                answer["findings"], answer["found"] = answer["findings"][:20], len(answer["findings"])
                results[key_of(answer)] = answer
                print(json.dumps(answer), file=out)
                progress(done, total, failed, start)

            sweep.run(jobs, options.processes, log, on_answer, options.seconds)
    wanted = [results[tuple(v)] for v in variants]
    print(file=sys.stderr)
    show(wanted, options.show) if options.show else table(wanted)
    return verdict(wanted)


def verdict(results):
    """0 when all that fails is listed in cannot.txt and nothing listed passes."""
    listed, code = cannot(), 0
    for result in results:
        keys = [(result["name"], result["dtype"]), (result["name"], "*")]
        known = [key for key in keys if key in listed]
        if result["findings"] and not known:
            code = 1
        if not result["findings"] and known:
            print(f"{result['name']} {result['dtype']} passes: remove it from cannot.txt")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
