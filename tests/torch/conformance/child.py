"""One process of a sweep: reads variants on stdin, a JSON line each, and answers on descriptor 3, a JSON line each.

What crashes or hangs it costs one variant: sweep.py starts another.
"""

import json
import os
import signal
import sys
import time
import traceback
import warnings

import waldo

waldo.connect("local")

import torch  # noqa: E402 (after waldo has been asked for)


def layer_counts():
    """Per operator, how many plans each layer has told, in order of LAYERS in report.py, and how many were wrong."""
    from waldo._torch import native

    module = native.get()
    return module.layer_counts() if hasattr(module, "layer_counts") else {}


def tried_as_json(job):
    from . import modules, optimizers, phases, suites

    suite, name, dtype = job["suite"], job["name"], job["dtype"]
    start, before = time.monotonic(), waldo.stats()
    layers_before = layer_counts()
    answer = {"suite": suite, "name": name, "dtype": dtype}
    try:
        if suite == "crash":  # of the driver's own test
            signal.pause() if name == "hang" else os.abort()
        if suite == "op":
            tried = phases.try_operator(suites.operators()[name], name, dtype, job["phases"], job.get("samples_max"))
        elif suite == "module":
            tried = modules.try_module(modules.registry()[name], dtype)
        else:
            tried = optimizers.try_optimizer(optimizers.registry()[name], dtype)
        answer.update(vars(tried))
        if tried.checks == 0:
            answer["findings"] = [{"phase": "", "sample": -1, "kind": "no samples", "text": ""}]
    except Exception:
        answer.setdefault("findings", []).append(
            {"phase": "driver", "sample": -1, "kind": "driver", "text": traceback.format_exc()[-1500:]}
        )
    after = waldo.stats()
    for count in ("conforms", "asks", "calls", "waits"):
        answer[count] = after[count] - before[count]
    try:
        if (torch.ones(2, device="cuda") + 1).tolist() != [2, 2]:
            raise RuntimeError("1 + 1 is not 2")
    except RuntimeError as error:
        answer["findings"].append({"phase": "after", "sample": -1, "kind": "crash", "text": str(error)[:400]})
        answer["lost"] = True
    layers = layer_counts()
    answer["layers"] = {
        op: [a - b for a, b in zip(counts, layers_before.get(op, [0] * len(counts)))]
        for op, counts in layers.items()
        if counts != layers_before.get(op)
    }
    answer["seconds"] = round(time.monotonic() - start, 2)
    return answer


def main():
    from . import suites

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    for line in sys.stdin:
        job = json.loads(line)
        if job.get("list"):
            print(json.dumps(suites.variants(job["suites"], job["dtypes"])), file=answers)
            continue
        answer = tried_as_json(job)
        print(json.dumps(answer), file=answers)
        if answer.get("lost"):
            break
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
