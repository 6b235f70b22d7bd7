"""What runs between the capture of a CUDA graph and its end (graphs.py). Imported at the first capture."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

REFUSED = "CUDA error: operation not permitted when stream is capturing"
# Memory without values: there is nothing to do again.
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"}


class Step:
    """One operator, and what it made: tensors of the capture that share no storage with its arguments."""

    def __init__(self, function: Any, args: Any, kwargs: Any, made: list[tuple[int, Any]]) -> None:
        self.function, self.args, self.kwargs, self.made = function, args, kwargs, made

    def run(self) -> None:
        outputs = tree_flatten(self.function(*self.args, **self.kwargs))[0]
        for index, tensor in self.made:
            tensor.copy_(outputs[index])


def _far(structure: Any) -> list[Any]:
    return [t for t in tree_flatten(structure)[0] if isinstance(t, torch.Tensor) and t.is_cuda]


def _values(item: Any) -> Any:
    """The tensor without what autograd knows of it, and with a version counter of its own: replays count no writes."""
    return item.data if isinstance(item, torch.Tensor) else item


def _key(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


class Capture(TorchDispatchMode):
    """Writes down what runs while it is entered, in this thread and in autograd's."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.kept: dict[int, Any] = {}  # by storage: what the capture made
        self.before: dict[int, tuple[Any, Any]] = {}  # by storage: what was there, and a copy of its bytes
        self.generators = [(g, g.get_state()) for g in torch.cuda.default_generators]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = _far((args, kwargs))
        self._keep_before(function, args, kwargs)
        self._refuse_waits(function, args, kwargs, inputs)
        result = function(*args, **kwargs)
        flat = tree_flatten(result)[0]
        if not inputs and not _far(flat):
            return result
        shared = {_key(t) for t in inputs}
        made = []
        for index, tensor in enumerate(flat):
            if isinstance(tensor, torch.Tensor) and tensor.is_cuda and _key(tensor) not in shared:
                self.kept[_key(tensor)] = _values(tensor)
                made.append((index, self.kept[_key(tensor)]))
        writes = _writes(function)
        if (made and function._schema.name.split("::")[1] not in _EMPTY) or writes:
            args, kwargs = tree_map(_values, (args, kwargs))
            self.steps.append(Step(function, args, kwargs, [(index, t) for index, t in made if t.numel()]))
        return result

    def _keep_before(self, function: Any, args: Any, kwargs: Any) -> None:
        for tensor in _far(_written(function, args, kwargs)):
            key = _key(tensor)
            if key not in self.kept and key not in self.before:
                whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
                self.before[key] = (whole, whole.clone())

    def _refuse_waits(self, function: Any, args: Any, kwargs: Any, inputs: list[Any]) -> None:
        name = function._schema.name
        waits = bool(inputs) and (
            torch.Tag.data_dependent_output in function.tags or torch.Tag.dynamic_output_shape in function.tags
        )
        if name == "aten::_to_copy" and inputs:
            device = kwargs.get("device")
            waits = device is not None and torch.device(device).type == "cpu" and not kwargs.get("non_blocking")
        elif name == "aten::copy_" and inputs:
            blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            waits = blocks and not args[0].is_cuda
        if waits:
            raise torch.AcceleratorError(REFUSED)

    def undo(self) -> None:
        for whole, copy in self.before.values():
            whole.copy_(copy)
        self.before.clear()
        for generator, state in self.generators:
            generator.set_state(state)


def _writes(function: Any) -> bool:
    return "batch_norm" in function._schema.name or any(
        a.alias_info is not None and a.alias_info.is_write for a in function._schema.arguments
    )


def _written(function: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that the operator writes into."""
    schema = function._schema
    if "batch_norm" in schema.name:  # writes running statistics without saying so
        return [*args, *kwargs.values()]
    return [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
