"""torch.compile on a Waldo device. Inductor writes kernels for a GPU that is in this machine; there is none, so a graph
that touches `cuda` is traced, differentiated and cut in two by AOT autograd as ever, and then its operators are called one
after another. They are those that run without torch.compile: values are the same to the bit, and nothing is fused.

Graphs of CPU tensors alone are Inductor's, as without us."""

from __future__ import annotations

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

    for node in graph.graph.nodes:  # "cuda" is what was the current device at the graph's place in the program
        made, device = node.meta.get("val"), node.kwargs.get("device")
        if isinstance(made, torch.Tensor) and isinstance(device, torch.device) and device.index is None:
            node.kwargs = {**node.kwargs, "device": made.device}
    return boxed_nop(graph, inputs)


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
