"""torch.compile on a Waldo device. Inductor writes kernels for a GPU that is in this machine; there is none, so a graph
that touches `cuda` is traced, differentiated and cut in two by AOT autograd as ever. Its operators are those that run
without torch.compile: values are the same to the bit, and nothing is fused. What is saved is the way to the worker: after
its first runs a graph is sent once, and then each call of it is one message (one_call.py).

Graphs of CPU tensors alone are Inductor's, as without us."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any


def patch() -> None:
    """After torch is imported: `torch.compile(…)`, whose backend is "inductor" unless it is told another. "cudagraphs" is
    ours too: what it saves is the launching of kernels from here, and none is."""
    import torch

    wrapper = torch._TorchCompileInductorWrapper
    inductor = wrapper.__call__

    def compile_graph(self: Any, graph: Any, inputs: Any, **options: Any) -> Any:
        if not _touches_cuda(graph, inputs):
            return inductor(self, graph, inputs, **options)
        return _by_operators(graph, inputs)

    other = torch._TorchCompileWrapper
    init = other.__init__

    def choose(self: Any, backend: Any, *arguments: Any, **options: Any) -> None:
        init(self, backend, *arguments, **options)
        if backend == "cudagraphs":
            self.compiler_fn = _by_operators

    wrapper.__call__ = compile_graph
    other.__init__ = choose


def _by_operators(graph: Any, inputs: Any, **_options: Any) -> Any:
    from torch._dynamo.backends.debugging import aot_eager

    return aot_eager(graph, inputs, fw_compiler=_callable, bw_compiler=_callable)


def _callable(graph: Any, inputs: Any) -> Any:
    import torch
    from torch._dynamo.backends.debugging import boxed_nop

    from waldo._torch.one_call import OneCall

    for node in graph.graph.nodes:  # "cuda" is what was the current device at the graph's place in the program
        made, device = node.meta.get("val"), node.kwargs.get("device")
        if isinstance(made, torch.Tensor) and isinstance(device, torch.device) and device.index is None:
            node.kwargs = {**node.kwargs, "device": made.device}
    run = boxed_nop(graph, inputs)
    constants = _constants(graph)
    return run if constants is None else OneCall(run, constants)


def _constants(graph: Any) -> list[Any] | None:
    """The far tensors that a graph has beside its arguments; None when its calls may differ from run to run though its
    arguments look the same, and no read tells: operators of somebody else's, tensors on the CPU."""
    import torch
    from torch.utils._pytree import tree_leaves

    constants = []
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            constant = getattr(graph, node.target, None)
            if not isinstance(constant, torch.Tensor) or not constant.is_cuda:
                return None
            constants.append(constant)
        elif node.op == "call_function":
            function = node.target
            if isinstance(function, torch._ops.OpOverload):
                if function.namespace not in ("aten", "prims"):
                    return None
            elif not _is_of_numbers(function):
                return None
        elif node.op not in ("placeholder", "output"):
            return None
        for made in tree_leaves(node.meta.get("val")):
            if isinstance(made, torch.Tensor) and not made.is_cuda:
                return None
    return constants


def _is_of_numbers(function: Any) -> bool:
    """Of sizes, or what takes an operator's results apart."""
    return getattr(function, "__module__", None) in ("_operator", "math") or function in _symbolic()


@functools.cache
def _symbolic() -> set[Any]:
    import torch

    names = ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sqrt", "sym_sum")
    return {getattr(torch, name) for name in names if hasattr(torch, name)}


def _touches_cuda(graph: Any, inputs: Any) -> bool:
    import torch
    from torch.utils._pytree import tree_leaves

    def values() -> Iterable[Any]:
        yield from inputs
        yield from graph.parameters()
        yield from graph.buffers()
        for node in graph.graph.nodes:
            yield from tree_leaves(node.meta.get("example_value"))

    return any(isinstance(value, torch.Tensor) and value.is_cuda for value in values())
