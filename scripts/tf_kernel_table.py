"""Writes the table of operators that TensorFlow has GPU kernels for: src/frontends/tensorflow/kernel_table_MINOR.inc.

Run it with a Python that imports the CUDA wheel of that minor; no GPU is needed, the kernels are registered in any case:

    python -m pip install --no-deps --target /somewhere tensorflow==2.21.0
    PYTHONPATH=/somewhere python scripts/tf_kernel_table.py src/frontends/tensorflow/kernel_table_2_21.inc

One line for each kernel, as C string literals of

    operator|attribute=type,type;attribute=…|host argument,host argument

Types are DataType numbers. A kernel that is registered once for each type becomes one line; of kernels that only differ
in priority the highest counts; one for DEVICE_DEFAULT counts where no GPU kernel takes the same types. Left out: kernels
with labels, and those whose arguments are all in host memory (they touch no device memory, and TensorFlow's own serve).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable

Types = tuple[tuple[str, frozenset[int]], ...]  # attribute -> allowed types, by name


def constraints_of(kernel) -> dict[str, frozenset[int]]:
    return {c.name: frozenset(c.allowed_values.list.type) for c in kernel.constraint}


def overlap(a: dict[str, frozenset[int]], b: dict[str, frozenset[int]]) -> bool:
    return all(not (name in b and a[name].isdisjoint(b[name])) for name in a)


def expand(constraints: dict[str, frozenset[int]]) -> Iterable[dict[str, frozenset[int]]]:
    names = sorted(constraints)
    for values in itertools.product(*(sorted(constraints[n]) for n in names)):
        yield {n: frozenset([v]) for n, v in zip(names, values, strict=True)}


def merge(rows: set[Types]) -> set[Types]:
    """Joins rows that differ in one attribute's types, until none do."""
    changed = True
    while changed:
        changed = False
        for a, b in itertools.combinations(sorted(rows, key=sort_key), 2):
            if [n for n, _ in a] != [n for n, _ in b]:
                continue
            differing = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
            if len(differing) == 1:
                i = differing[0]
                joined = (*a[:i], (a[i][0], a[i][1] | b[i][1]), *a[i + 1 :])
                rows = (rows - {a, b}) | {joined}
                changed = True
                break
    return rows


def sort_key(row: Types):
    return [(name, sorted(types)) for name, types in row]


def all_on_host(op_def, host: frozenset[str]) -> bool:
    from tensorflow.core.framework import types_pb2

    always = {types_pb2.DT_STRING, types_pb2.DT_RESOURCE}
    return all(arg.name in host or arg.type in always for arg in [*op_def.input_arg, *op_def.output_arg])


def table() -> list[str]:
    from tensorflow.python.framework import kernels, op_def_registry

    by_op: dict[str, list] = {}
    for kernel in kernels.get_all_registered_kernels().kernel:
        if kernel.device_type in ("GPU", "DEFAULT") and not kernel.label:
            by_op.setdefault(kernel.op, []).append(kernel)
    lines = []
    for op in sorted(by_op):
        op_def = op_def_registry.get(op)
        if op_def is None:
            continue
        taken: list[tuple[dict[str, frozenset[int]], frozenset[str]]] = []
        ordered = sorted(by_op[op], key=lambda k: (k.device_type != "GPU", -k.priority))
        for device in ("GPU", "DEFAULT"):
            before = list(taken)  # within one device type kernels differ in types, or in priority
            for kernel in (k for k in ordered if k.device_type == device):
                host = frozenset(kernel.host_memory_arg)
                for one in expand(constraints_of(kernel)):
                    rivals = before if device == "DEFAULT" else [t for t in taken if t[0] == one]
                    same = [t for t in taken if t[0] == one]
                    if not same and not any(overlap(one, other) for other, _ in rivals):
                        taken.append((one, host))
        by_host: dict[frozenset[str], set[Types]] = {}
        for constraints, host in taken:
            if not all_on_host(op_def, host):
                by_host.setdefault(host, set()).add(tuple(sorted(constraints.items())))
        for host in sorted(by_host, key=sorted):
            for row in sorted(merge(by_host[host]), key=sort_key):
                types = ";".join(f"{name}={','.join(map(str, sorted(t)))}" for name, t in row)
                lines.append(f"{op}|{types}|{','.join(sorted(host))}")
    return lines


def main() -> int:
    import tensorflow as tf

    lines = table()
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write(f"// TensorFlow {tf.__version__}: made by scripts/tf_kernel_table.py; do not edit.\n")
        out.writelines(f'"{line}",\n' for line in lines)
    print(f"{len(lines)} lines, {len({line.split('|')[0] for line in lines})} operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
