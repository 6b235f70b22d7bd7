"""The variants: (suite, name, dtype)."""

import torch

DTYPES = ("float32", "bfloat16", "float16", "int64", "bool", "complex64")
# What it gives is not defined: only shape, strides and dtype are compared.
UNDEFINED = {
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
}  # fmt: skip


def operators():
    from torch.testing._internal.common_methods_invocations import op_db

    return {op.name + ("." + op.variant_test_name if op.variant_test_name else ""): op for op in op_db}


def variants(suites, dtypes):
    from . import modules, optimizers

    found = []
    if "op" in suites:
        for name, op in operators().items():
            found += [("op", name, d) for d in dtypes if getattr(torch, d) in op.dtypesIfCUDA]
    if "module" in suites:
        for name, info in modules.registry().items():
            found += [("module", name, d) for d in dtypes if getattr(torch, d) in info.dtypes]
    if "optim" in suites:
        found += [("optim", name, d) for name in optimizers.registry() for d in dtypes if d in ("float32", "bfloat16")]
    return found
