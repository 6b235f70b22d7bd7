"""Functions of far tensors that are run again and again with arguments that look the same: graphs of torch.compile and
captured CUDA graphs. Run once operator by operator, sent once, and from then on one call (frontends/torch/graph.h)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from waldo._torch import native


class OneCall:
    """`run(arguments)`, whose operators depend on nothing but how its arguments look; it may empty the list. `constants`
    are far tensors that it uses besides. Results are `run`'s to the bit, whichever way they come."""

    def __init__(self, run: Callable[[list[Any]], Any], constants: Sequence[Any] = ()) -> None:
        self._boxed_call = True  # to AOT autograd: takes a list, and may empty it
        self._run = run
        self._constants = list(constants)
        self._graph = native.get().Graph()
        self.why_not: str | None = None  # what kept the last run from becoming a graph

    def __call__(self, arguments: list[Any]) -> Any:
        if _is_watched():
            return self._run(arguments)
        all_arguments = arguments + self._constants if self._constants else arguments
        results = self._graph.run(all_arguments)
        if results is not None:
            arguments.clear()
            return results
        if not self._graph.begin(all_arguments):
            return self._run(arguments)
        try:
            results = self._run(arguments)
        except BaseException:
            self._graph.abandon()
            raise
        self.why_not = self._graph.end(results)
        return results

    def graphs(self) -> int:
        return len(self._graph)


def _is_watched() -> bool:
    """Somebody wants to see each operator."""
    import torch

    return bool(torch._C._len_torch_dispatch_stack() or torch.autograd._profiler_enabled())
