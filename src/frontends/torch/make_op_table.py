#!/usr/bin/env python3
"""Writes op_table.inc: the operators that the CUDA key forwards, of every PyTorch that Waldo is built for.

Reads the native_functions.yaml that each torch wheel ships in torchgen/packaged/ATen/native; needs pyyaml, so it runs on a
developer's machine and its output is checked in. An operator that one PyTorch lacks is left out there when it is registered.
One line per operator that lists CUDA, itself or through its structured kernel, in any of them:

    WALDO_OP("aten::add.Tensor", kPlain)

and one per operator whose kernel for sparse or nested tensors is the same function for CPU and CUDA (it calls operators on
the plain tensors that such a tensor is made of):

    WALDO_SHARED("aten::sin", SparseCPU, SparseCUDA)

Usage: make_op_table.py native_functions.yaml …     (`make torch-matrix` unpacks them under build/torch)
"""

import pathlib
import sys

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


# Kinds of tensors that are made of plain ones, and the functions on plain tensors that make them.
SHARED_KEYS = (("SparseCPU", "SparseCUDA"), ("SparseCsrCPU", "SparseCsrCUDA"), ("NestedTensorCPU", "NestedTensorCUDA"))
MAKERS = {
    "_to_sparse.sparse_dim", "_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "_to_sparse_bsr", "_to_sparse_bsc",
    "sparse_mask", "_nested_from_padded", "_nested_tensor_from_mask", "_nested_tensor_from_mask_left_aligned",
    "_nested_view_from_buffer", "_embedding_bag_backward",
}  # fmt: skip


# CUDA's function is another, but the CPU's is nothing but operators on the plain tensors too.
GENERIC = {
    "to_padded_tensor": "NestedTensor_to_padded_tensor_generic",
    "bmm": "bmm_nested",
    "_nested_from_padded": "nested_from_padded_generic",
    "_native_multi_head_attention": "native_multi_head_attention_cpu",
    "_nested_tensor_softmax_with_shape": "NestedTensor_softmax_dropout",
}
# One function, which reads values itself: kernels_nested.cc.
READS_VALUES = {"native_layer_norm"}


def shared(entries):
    """Yields (name, CPU's key, CUDA's key) where both have one function."""
    for entry in entries:
        name = entry["func"].split("(")[0].strip()
        if name in READS_VALUES:
            continue
        functions = {k.strip(): f for keys, f in (entry.get("dispatch") or {}).items() for k in keys.split(",")}
        for cpu, cuda in SHARED_KEYS + ((("CPU", "CUDA"),) if name in MAKERS else ()):
            generic = cpu in functions and functions[cpu] == GENERIC.get(name)
            if cuda in functions and (generic or functions.get(cpu) == functions[cuda]):
                yield name, cpu, cuda


def main():
    asked, both = {}, set()
    for source in sys.argv[1:]:
        entries = yaml.safe_load(pathlib.Path(source).read_text())
        for name, is_asked in operators(entries):
            asked[name] = asked.get(name, False) or is_asked
        both |= set(shared(entries))
    lines = [
        f"// Made by make_op_table.py from {len(sys.argv) - 1} versions of PyTorch; {len(asked)} operators. Do not edit."
    ]
    lines += [
        f'WALDO_OP("aten::{name}", {"kAsk" if is_asked else "kPlain"})' for name, is_asked in sorted(asked.items())
    ]
    lines += ["#ifdef WALDO_SHARED"]
    lines += [f'WALDO_SHARED("aten::{name}", {cpu}, {cuda})' for name, cpu, cuda in sorted(both)]
    lines += ["#endif"]
    target = pathlib.Path(__file__).parent / "op_table.inc"
    target.write_text("\n".join(lines) + "\n")
    print(f"{target.name}: {len(asked)} operators", file=sys.stderr)


if __name__ == "__main__":
    main()
