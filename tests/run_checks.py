"""Runs every check of one module and writes what each gave: python run_checks.py MODULE.py DEVICE OUT

A check is a function `check_…(device)`; what it returns (tensors, numbers, strings, in lists and dicts) is compared with
what it returns on the CPU. `only_cuda_…(device)` holds its own assertions and runs on cuda only. Results are written
after each check, so that a crash names the check that it happened in; how long each took is written beside them.
"""

import importlib
import os
import sys
import time
import traceback
from pathlib import Path

import torch


def to_cpu(value):
    if isinstance(value, torch.Tensor):
        assert not value.is_cuda or value.device.index is not None
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_cpu(item) for item in value]
    return value


def names_of(module, device):
    prefixes = ("check_", "only_cuda_") if device.startswith("cuda") else ("check_",)
    return [name for name in vars(module) if name.startswith(prefixes)]


def main():
    path, device, out = Path(sys.argv[1]), *sys.argv[2:]
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    results = {}
    for name in names_of(module, device):
        results[name] = ("crashed", f"the process ended during {name}", 0.0)
        torch.save(results, out + ".new")
        os.replace(out + ".new", out)
        torch.manual_seed(4711)
        began = time.perf_counter()
        try:
            outcome, value = "ok", to_cpu(getattr(module, name)(device))
        except Exception:
            outcome, value = "raised", traceback.format_exc()
        results[name] = (outcome, value, time.perf_counter() - began)
    torch.save(results, out)


if __name__ == "__main__":
    main()
