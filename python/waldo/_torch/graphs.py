"""CUDA graphs: torch._C._CUDAGraph, and with it torch.cuda.graph and make_graphed_callables.

A capture runs the program's operators once, writes them down, and undoes what they changed. A replay calls them again, in
order, on the very tensors of the capture: what an operator made then is filled again with what it makes now. So every
tensor of a capture lives as long as its graph, as in a graph's private memory on a GPU.

A replay gives what CUDA's gives, and is one call, as the launch of a CUDA graph is (one_call.py).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from waldo._torch import native, unavailable
from waldo._torch.one_call import OneCall

if TYPE_CHECKING:
    from waldo._torch.capture import Capture, Step

_pool_numbers = itertools.count(1)


def new_pool() -> tuple[int, int]:
    return (0, next(_pool_numbers))


def is_capturing() -> bool:
    return bool(native.get().is_capturing())


class CUDAGraph:
    """What torch.cuda.CUDAGraph derives from."""

    __module__ = "torch._C"
    _capture: Capture | None
    _steps: list[Step] | None
    _kept: dict[int, Any]
    _pool: Any
    _one_call: OneCall | None

    def __new__(cls, keep_graph: bool = False) -> Any:
        graph: Any = super().__new__(cls)
        graph._capture = None
        graph._steps = None
        graph._pool = None
        graph._kept = {}
        graph._one_call = None
        return graph

    def __init__(self, keep_graph: bool = False) -> None:
        pass

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        import torch

        from waldo._torch.capture import Capture

        if capture_error_mode not in ("global", "thread_local", "relaxed", "default"):
            raise RuntimeError(
                f"Unknown capture error mode. Expected `global`, `thread_local`, or `relaxed`, got {capture_error_mode}"
            )
        if is_capturing():
            raise RuntimeError("A capture is under way already; a Waldo device has one at a time")
        if self._steps is not None:
            raise RuntimeError(
                "This CUDAGraph instance already owns a captured graph. To capture a new graph, create a new instance."
            )
        if torch.cuda.current_stream().cuda_stream == 0:
            raise RuntimeError(
                "CUDA graphs must be captured on a non-default stream. (However, after capture, it's ok to replay them "
                "on the default stream.)"
            )
        self._pool = tuple(pool) if pool is not None else new_pool()
        self._capture = Capture()
        self._capture.__enter__()
        native.get().set_capturing(True)

    def capture_end(self) -> None:
        if self._capture is None:
            raise RuntimeError("capture_end() without capture_begin()")
        capture, self._capture = self._capture, None
        native.get().set_capturing(False)
        capture.__exit__(None, None, None)
        capture.undo()
        self._steps, self._kept = capture.steps, capture.kept

    def instantiate(self) -> None:
        self._captured("instantiate")

    def replay(self) -> None:
        import torch

        steps = self._captured("replay")
        if self._one_call is None:
            self._one_call = OneCall(lambda _: _run(steps), _distinct(steps))
        with torch.no_grad():
            self._one_call([])

    def reset(self) -> None:
        self._steps, self._kept, self._one_call = None, {}, None

    def pool(self) -> Any:
        self._captured("pool")
        return self._pool

    def register_generator_state(self, generator: Any) -> None:
        """Operators draw from their generators at a replay too."""

    def enable_debug_mode(self) -> None:
        """debug_dump() is always there."""

    def debug_dump(self, debug_path: str) -> None:
        """The operators, in order, as a Graphviz file."""
        names = [step.function._schema.name for step in self._captured("debug_dump")]
        lines = [f'  n{i} [label="{name}"];' for i, name in enumerate(names)]
        lines += [f"  n{i} -> n{i + 1};" for i in range(len(names) - 1)]
        with open(debug_path, "w") as file:
            file.write("\n".join(["digraph captured {", *lines, "}"]) + "\n")

    def raw_cuda_graph(self) -> int:
        return unavailable.refuse("torch.cuda.CUDAGraph.raw_cuda_graph", unavailable.GRAPHS)

    def raw_cuda_graph_exec(self) -> int:
        return unavailable.refuse("torch.cuda.CUDAGraph.raw_cuda_graph_exec", unavailable.GRAPHS)

    def _captured(self, what: str) -> list[Step]:
        if self._steps is None:
            raise RuntimeError(f"Called CUDAGraph::{what} without a preceding successful capture.")
        return self._steps


def _run(steps: list[Step]) -> tuple[()]:
    for step in steps:
        step.run()
    return ()


def _distinct(steps: list[Step]) -> list[Any]:
    """Every tensor that they name."""
    from torch.utils._pytree import tree_leaves

    tensors: dict[int, Any] = {}
    for step in steps:
        for item in tree_leaves((step.args, step.kwargs, [tensor for _, tensor in step.made])):
            if hasattr(item, "untyped_storage"):
                tensors[id(item)] = item
    return list(tensors.values())
