"""Runs every check of one module and writes what each gave: python run_checks.py MODULE DEVICE OUT

A check is a function `check_…(device)`; what it returns (tensors, numbers, strings, in lists and dicts) is compared with
what it returns on the CPU. `only_cuda_…(device)` holds its own assertions and runs on cuda only. Results are written
after each check, so that a crash names the check that it happened in.
"""

import importlib
import os
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


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
    module_name, device, out = sys.argv[1:]
    module = importlib.import_module(module_name)
    results = {}
    for name in names_of(module, device):
        results[name] = ("crashed", f"the process ended during {name}")
        torch.save(results, out + ".new")
        os.replace(out + ".new", out)
        torch.manual_seed(4711)
        try:
            results[name] = ("ok", to_cpu(getattr(module, name)(device)))
        except Exception:
            results[name] = ("raised", traceback.format_exc())
    torch.save(results, out)


if __name__ == "__main__":
    main()
