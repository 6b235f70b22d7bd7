"""Optimizers of optim_db: some steps in every form (a loop, foreach, fused, capturable), parameters and state."""
# ruff: noqa: B023 (every function made in a loop is called before the loop goes on)

import sys
from contextlib import contextmanager

import torch

from .comparing import same
from .moving import Mover
from .phases import SEED, Outcome, Tried

STEPS = 3
SHAPES = ((4, 3), (3,), (2, 3, 2), (5, 5))


def registry():
    from torch.testing._internal.common_optimizers import optim_db

    return {info.optim_cls.__name__: info for info in optim_db}


@contextmanager
def capturable_everywhere():
    """`capturable` is refused on the CPU, though the same steps are nothing but tensor operations."""
    with_it = [m for n, m in sys.modules.items() if n.startswith("torch.optim.")]
    saved = [
        (m, m._get_capturable_supported_devices) for m in with_it if hasattr(m, "_get_capturable_supported_devices")
    ]
    for module, _ in saved:
        module._get_capturable_supported_devices = lambda *_, **__: ["cpu", "cuda"]
    try:
        yield
    finally:
        for module, function in saved:
            module._get_capturable_supported_devices = function


def steps(info, kwargs, device, dtype):
    """Parameters and state after STEPS steps with gradients that are the same everywhere."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = [s for s in SHAPES if len(s) == 2] if info.optim_cls.__name__ == "Muon" else SHAPES

    def numbers(shape):
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    parameters = [torch.nn.Parameter(numbers(shape)) for shape in shapes]
    optimizer = info.optim_cls(parameters, **Mover(device)(kwargs))

    def closure():
        if info.optim_cls.__name__ == "LBFGS":
            optimizer.zero_grad()
            total = sum(((p - 1) ** 2).sum() for p in parameters)
            total.backward()
            return total
        return None

    for _ in range(STEPS):
        for p in parameters:
            p.grad = numbers(p.shape)
            if info.only_supports_sparse_grads:
                p.grad = p.grad.to_sparse()
        optimizer.step(closure) if info.step_requires_closure else optimizer.step()
    state = [{k: v for k, v in sorted(s.items()) if k != "func_evals"} for s in optimizer.state.values()]
    return [p.detach() for p in parameters], state


def try_optimizer(info, dtype):
    tried = Tried()
    dtype = getattr(torch, dtype)
    forms = [{}] if not info.supported_impls else [{"foreach": False}]
    forms += [{form: True} for form in info.supported_impls if form != "differentiable"]
    index = 0
    for given in info.optim_inputs_func(device="cuda", dtype=dtype):
        for form in forms:
            if form.get("fused") and given.kwargs.get("differentiable"):
                continue
            kwargs = {**given.kwargs, **form}
            tried.samples += 1
            with capturable_everywhere():
                here = Outcome(lambda: steps(info, kwargs, "cpu", dtype))
                there = Outcome(lambda: steps(info, kwargs, "cuda:0", dtype))
            phase = ", ".join(f"{k}" for k, v in form.items() if v) or "loop"
            tried.outcomes(phase, index, here, there, lambda: same(here.value, there.value))
            index += 1
    return tried
