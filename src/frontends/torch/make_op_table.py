#!/usr/bin/env python3
"""Writes op_table_<major>_<minor>.inc: the operators that the CUDA key forwards, for the torch that is installed here.

Reads the native_functions.yaml that torchgen ships inside the torch wheel; needs pyyaml, so it runs on a developer's
machine and its output is checked in. One line per operator that lists CUDA, itself or through its structured kernel:

    WALDO_OP("aten::add.Tensor", kPlain)

Usage: make_op_table.py [OUTPUT_FOLDER]
"""

import importlib.metadata
import pathlib
import sys

import torchgen
import yaml

# Sizes of the outputs depend on values, or a value leaves the device: asked every time.
ALWAYS_ASK_TAGS = {"dynamic_output_shape", "data_dependent_output"}


def operators(entries):
    """Yields (name, is_asked) for every entry that CUDA implements."""
    by_name = {}
    for entry in entries:
        by_name[entry["func"].split("(")[0].strip()] = entry

    def lists_cuda(entry):
        delegate = entry.get("structured_delegate")
        if delegate:
            return lists_cuda(by_name[delegate])
        if "ufunc_inner_loop" in entry:  # torchgen writes its CUDA kernel itself
            return True
        return any("CUDA" in [key.strip() for key in keys.split(",")] for keys in entry.get("dispatch", {}))

    for name, entry in by_name.items():
        tags = entry.get("tags", [])
        tags = {tags} if isinstance(tags, str) else set(tags)
        if lists_cuda(entry):
            yield name, bool(tags & ALWAYS_ASK_TAGS)


def main():
    source = pathlib.Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    major, minor = importlib.metadata.version("torch").split(".")[:2]
    here = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    found = sorted(operators(yaml.safe_load(source.read_text())))
    lines = [f"// Made by make_op_table.py from torch {major}.{minor}; {len(found)} operators. Do not edit."]
    lines += [f'WALDO_OP("aten::{name}", {"kAsk" if is_asked else "kPlain"})' for name, is_asked in found]
    target = here / f"op_table_{major}_{minor}.inc"
    target.write_text("\n".join(lines) + "\n")
    print(f"{target.name}: {len(found)} operators", file=sys.stderr)


if __name__ == "__main__":
    main()
