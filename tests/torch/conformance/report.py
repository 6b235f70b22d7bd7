"""What a sweep found: tables by dtype, by class of failure, by layer."""

import json
import sys
from collections import Counter


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

    def say(text=""):
        print(text, file=file)

    groups = {}
    for result in results:
        groups.setdefault((result["suite"], result["dtype"]), []).append(result)
    say(
        f"{'suite':8}{'dtype':11}{'variants':>9}{'equal':>8}{'%':>8}{'samples':>9}{'checks':>9}{'raise':>8}{'conformed':>11}"
    )
    for (suite, dtype), group in sorted(groups.items(), key=lambda g: g[0]):
        equal = sum(not r["findings"] for r in group)
        total = {key: sum(r.get(key, 0) for r in group) for key in ("samples", "checks", "both_raise", "conforms")}
        say(
            f"{suite:8}{dtype:11}{len(group):9}{equal:8}{100 * equal / len(group):8.2f}{total['samples']:9}"
            f"{total['checks']:9}{total['both_raise']:8}{total['conforms']:11}"
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
                print(describe(result, finding))


def describe(result, finding):
    names = (result["name"], result["dtype"], finding["phase"], str(finding["sample"]), finding["kind"])
    return " | ".join([*names, finding["text"].strip().splitlines()[-1] if finding["text"].strip() else ""])


LAYERS = ("rule", "Meta", "arguments", "learned", "asked", "conformed")


def layers(results, file=sys.stdout):
    """Plans by what told them, per operator; those that were conformed first: their layer is wrong for this worker."""
    total = {}
    for result in results:
        for op, counts in result.get("layers", {}).items():
            total[op] = [a + b for a, b in zip(total.get(op, [0] * len(LAYERS)), counts)]
    print(f"{'operator':56}" + "".join(f"{name:>10}" for name in LAYERS), file=file)
    for op, counts in sorted(total.items(), key=lambda t: (-t[1][-1], t[0])):
        print(f"{op:56}" + "".join(f"{count or '':>10}" for count in counts), file=file)
