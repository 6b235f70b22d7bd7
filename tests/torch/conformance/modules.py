"""Modules of module_db: the same parameters here and there, training and evaluation, output, gradients and buffers."""
# ruff: noqa: B023 (every function made in a loop is called before the loop goes on)

import contextlib
import copy
import inspect

import torch

from . import recurrent
from .comparing import same
from .moving import Mover, tensors_of
from .phases import SEED, Outcome, Tried, cotangents
from .references import attention, linear_cross_entropy_as_on_cuda, plain_attention

# Modules that CUDA takes apart in another way: within these the CPU does the same.
AS_ON_CUDA = {
    "nn.RNN": recurrent.as_on_cuda,
    "nn.LSTM": recurrent.as_on_cuda,
    "nn.GRU": recurrent.as_on_cuda,
    "nn.LinearCrossEntropyLoss": linear_cross_entropy_as_on_cuda,
}


@contextlib.contextmanager
def attention_as_on_cuda():
    def attend(query, key, value, attn_mask=None, dropout_p=0.0, *arguments, **options):
        form = plain_attention if dropout_p > 0 else attention  # with dropout the CPU takes no fused form either
        return form(query, key, value, attn_mask, dropout_p, *arguments, **options)

    torch.nn.functional.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = plain_attention


def registry():
    from torch.testing._internal.common_modules import module_db

    return {info.name: info for info in module_db}


class Side:
    """One module with its inputs on one device."""

    def __init__(self, module, forward_input, device):
        self.module = module
        self.mover = Mover(device)
        self.arguments = self.mover((tuple(forward_input.args), dict(forward_input.kwargs)))

    def run(self):
        args, kwargs = self.arguments
        self.output = self.module(*args, **kwargs)
        outputs = [t for t in tensors_of(self.output) if t.requires_grad]
        leaves = self.mover.leaves + [p for p in self.module.parameters() if p.requires_grad]
        gradients = []
        if outputs and leaves:
            weights = [w.to(t.device) for w, t in zip(cotangents(outputs), outputs)]
            gradients = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
        return self.output, list(gradients), list(self.module.buffers())


def make(module_class, constructor, mover, device, dtype):
    args, kwargs = mover((tuple(constructor.args), dict(constructor.kwargs)))
    takes = inspect.signature(module_class.__init__).parameters
    if "device" in takes:
        kwargs = kwargs | {"device": device, "dtype": dtype}
        return module_class(*args, **kwargs)
    return module_class(*args, **kwargs).to(device=device, dtype=dtype)


def try_module(info, dtype):
    tried = Tried()
    dtype = getattr(torch, dtype)
    for training in (True, False):
        torch.manual_seed(SEED)
        inputs = info.module_inputs_func(info, device="cuda:0", dtype=dtype, requires_grad=True, training=training)
        for index, given in enumerate(inputs):
            tried.samples += 1
            phase = "train" if training else "eval"
            torch.manual_seed(SEED)
            here = make(info.module_cls, given.constructor_input, Mover("cpu"), "cpu", dtype)
            there = make(info.module_cls, copy.deepcopy(given.constructor_input), Mover("cuda:0"), "cuda:0", dtype)
            if info.is_lazy:
                Outcome(lambda: Side(here, given.forward_input, "cpu").run())
                Outcome(lambda: Side(there, given.forward_input, "cuda:0").run())
            there.load_state_dict(here.state_dict())
            sides = []
            for module, device in ((here, "cpu"), (there, "cuda:0")):
                module.train(training)
                sides.append(Side(module, given.forward_input, device))
            with AS_ON_CUDA.get(info.name, contextlib.nullcontext)(), attention_as_on_cuda():
                mine = Outcome(sides[0].run)
            outcomes = [mine, Outcome(sides[1].run)]
            tried.outcomes(phase, index, *outcomes, lambda: same(outcomes[0].value, outcomes[1].value))
    return tried
