"""What is tried with one operator variant. Each phase yields once per comparison: None, or a finding (kind, text)."""
# ruff: noqa: B023 (every function made in a loop is called before the loop goes on)

import re
import warnings

import torch

from .comparing import Different, aliases, same, same_tensor
from .moving import Mover, tensors_of
from .references import REFERENCES
from .suites import UNDEFINED

SEED = 20261121


class Outcome:
    """What a call gave: `value`, or `error`."""

    def __init__(self, function):
        self.error = self.value = None
        torch.manual_seed(SEED)
        try:
            self.value = function()
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            self.error = error.with_traceback(None)


def text_of(error):
    """The text as one that does not know where tensors are: devices are named alike, no addresses."""
    text = str(error).split("\nException raised from")[0]
    text = re.sub(r" \(raised by [^ ]+ on the worker[^)]*\)", "", text)
    # What follows lists backends or overloads, of which one device has more than the other.
    text = re.split(r"This could be because the operator|failed to match any schema", text)[0]
    text = re.sub(r"'?cuda(:\d)?'?|'?cpu'?", "DEVICE", text, flags=re.IGNORECASE)
    return re.sub(r"0x[0-9a-f]+", "ADDRESS", text).strip()


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


class Tried:
    """Findings of one variant, and how many comparisons there were."""

    def __init__(self):
        self.samples = self.checks = self.both_raise = 0
        self.findings = []

    def find(self, phase, sample, kind, text):
        self.findings.append({"phase": phase, "sample": sample, "kind": kind, "text": text[:400]})

    def outcomes(self, phase, sample, here, there, compare, expected=None):
        """True when both gave a value and it is the same."""
        self.checks += 1
        if there.error is None and here.error is not None:  # what is asynchronous comes out here, or when it is read
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                there.error = error.with_traceback(None)
        if here.error is not None and there.error is not None:
            self.both_raise += 1
            if expected and isinstance(there.error, expected.error_type):
                if re.search(expected.error_regex, str(there.error)):
                    return False
            if type(here.error) is not type(there.error):
                self.find(phase, sample, "error type", f"{first_line(there.error)} instead of {first_line(here.error)}")
            elif text_of(here.error) != text_of(there.error):
                self.find(phase, sample, "error text", f"{first_line(there.error)} instead of {first_line(here.error)}")
            return False
        if there.error is not None:
            if not (expected and matches(there.error, expected)):
                self.find(phase, sample, "raises", first_line(there.error))
            return False
        if here.error is not None:
            self.find(phase, sample, "raises nothing", f"the CPU says {first_line(here.error)}")
            return False
        if expected:
            return True
        try:
            compare()
        except Different as different:
            self.find(phase, sample, different.kind, str(different))
            return False
        except RuntimeError as error:  # reading failed
            self.find(phase, sample, "raises", "at a read: " + first_line(error))
            return False
        return True


def matches(error, expected):
    return isinstance(error, expected.error_type) and re.search(expected.error_regex, str(error)) is not None


class Pair:
    """The same sample here and there."""

    def __init__(self, sample):
        self.here_mover, self.there_mover = Mover("cpu"), Mover("cuda:0")
        self.here = self.here_mover.sample(sample)
        self.there = self.there_mover.sample(sample)

    def inputs_same(self, undefined=False):
        mine, theirs = tensors_of(self.here), tensors_of(self.there)
        for index, (x, y) in enumerate(zip(mine, theirs)):
            if x._version != y._version:
                raise Different("version", f"input {index} is of version {y._version} instead of {x._version}")
            if x._version > 0:
                same_tensor(x, y, not undefined, what=f"input {index}: ")


def plain(function, structure):
    value, args, kwargs = structure
    return lambda: function(value, *args, **kwargs)


def cotangents(outputs):
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for out in outputs:
        kind = out.dtype if out.dtype.is_floating_point or out.dtype.is_complex else torch.float32
        found.append(torch.randn(out.shape, generator=generator, dtype=kind))
    return found


def gradients(pair, result, which, process):
    """Gradients of what `which` ("here" or "there") calculated, by its leaves."""
    result = process(result)
    outputs = [t for t in tensors_of(result) if t.requires_grad]
    leaves = getattr(pair, which + "_mover").leaves
    weights = [w.to(t.device) for w, t in zip(cotangents(outputs), outputs)]
    return list(torch.autograd.grad(outputs, leaves, weights, allow_unused=True))


def forward(op, name, sample, index, tried, phase, backward):
    pair = Pair(sample)
    function = op.op
    here = Outcome(plain(REFERENCES.get(name, function), pair.here))
    there = Outcome(plain(function, pair.there))
    undefined = name in UNDEFINED

    def compare():
        same(here.value, there.value, not undefined)
        mine = aliases(tensors_of(pair.here), tensors_of(here.value))
        theirs = aliases(tensors_of(pair.there), tensors_of(there.value))
        if mine != theirs:
            raise Different("alias", f"{theirs} instead of {mine}")
        pair.inputs_same(undefined)

    if not tried.outcomes(phase, index, here, there, compare) or not backward:
        return
    if not any(t.requires_grad for t in tensors_of(here.value)) or not pair.here_mover.leaves:
        return
    process = sample.output_process_fn_grad
    mine = Outcome(lambda: gradients(pair, here.value, "here", process))
    theirs = Outcome(lambda: gradients(pair, there.value, "there", process))
    tried.outcomes("backward", index, mine, theirs, lambda: same(mine.value, theirs.value, what="gradient "))


def dirty_like(tensor, device):
    out = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    return out.fill_(1)


def other_dtype(tensor):
    return torch.int32 if tensor.dtype != torch.int32 else torch.int16


OTHER_FORMS_SAMPLES = 4  # the first form is tried with every sample, the others with so many
OUT_FORMS = {
    "same": dirty_like,
    "empty": lambda t, device: torch.empty(0, dtype=t.dtype, device=device),
    "spread": lambda t, device: torch.ones([*t.shape, 2], dtype=t.dtype, device=device)[..., 0],
    "wrong size": lambda t, device: torch.ones([*t.shape, 3], dtype=t.dtype, device=device),
    "wrong dtype": lambda t, device: torch.ones(t.shape, dtype=other_dtype(t), device=device),
}  # fmt: skip


def with_out(op, name, sample, index, tried):
    """out= tensors of the right size, of none, spread out, and those that are resized or refused."""
    first = Outcome(plain(op.op, Pair(sample).here))
    if first.error is not None or not all(isinstance(t, torch.Tensor) for t in tensors_of(first.value)):
        return
    for form, make in OUT_FORMS.items():
        if form != "same" and index >= OTHER_FORMS_SAMPLES:
            break
        pair = Pair(sample)

        def run(structure, mover, make=make):
            outs = [make(t, mover.device) for t in tensors_of(first.value)]
            before = [t.data_ptr() for t in outs]
            value, args, kwargs = structure
            out = outs[0] if isinstance(first.value, torch.Tensor) else tuple(outs)
            out = outs if isinstance(first.value, list) else out
            result = op.op(value, *args, **kwargs, out=out)
            moved = [a == t.data_ptr() for a, t in zip(before, outs)]
            return outs, result, moved, all(x is y for x, y in zip(tensors_of(result), outs))

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = Outcome(lambda: run(pair.here, pair.here_mover))
            there = Outcome(lambda: run(pair.there, pair.there_mover))

        def compare():
            try:
                same(here.value[0], there.value[0], name not in UNDEFINED)
            except Different:
                if form != "wrong size":
                    raise
                # The CPU's fft.ihfft2 leaves such a tensor half written; what it gives without out= is right.
                same(tensors_of(first.value), there.value[0], strides=False)
            if form == "same" and not all(there.value[2]):
                raise Different("alias", "out= has other memory")
            if here.value[3] != there.value[3]:
                raise Different("alias", "the result is not out=")

        tried.outcomes(f"out= {form}", index, here, there, compare)


def in_place(op, name, function, sample, index, tried):
    pair = Pair(sample)
    detach = torch.no_grad

    def run(structure):
        value, args, kwargs = structure
        with detach():
            result = function(value, *args, **kwargs)
        return value, result, result is value

    here = Outcome(lambda: run(pair.here))
    there = Outcome(lambda: run(pair.there))

    def compare():
        same(here.value, there.value, name not in UNDEFINED)
        pair.inputs_same()

    tried.outcomes("in-place", index, here, there, compare)


def errors(op, tried):
    for index, error_input in enumerate(op.error_inputs("cuda:0")):
        pair = Pair(error_input.sample_input)
        here = Outcome(plain(op.op, pair.here))
        there = Outcome(plain(op.op, pair.there))
        tried.outcomes("errors", index, here, there, lambda: None, expected=error_input)


def try_operator(op, name, dtype, wanted, samples_max=None):
    """Everything of `wanted` with one operator and dtype."""
    tried = Tried()
    dtype = getattr(torch, dtype)
    backward = "backward" in wanted and op.supports_autograd and dtype in op.supported_backward_dtypes("cuda")
    inplace = op.get_inplace() if "inplace" in wanted else None
    torch.manual_seed(SEED)
    samples = op.sample_inputs("cuda:0", dtype, requires_grad=backward)
    for index, sample in enumerate(samples):
        if samples_max is not None and index >= samples_max:
            break
        tried.samples += 1
        forward(op, name, sample, index, tried, "forward", backward)
        if "noncontiguous" in wanted and all(t.layout is torch.strided for t in tensors_of(sample.input)):
            forward(op, name, sample.noncontiguous(), index, tried, "noncontiguous", False)
        if "out" in wanted and op.supports_out:
            with_out(op, name, sample, index, tried)
        if inplace is not None:
            in_place(op, name, inplace, sample, index, tried)
        torch.manual_seed(SEED + index + 1)
    if "errors" in wanted and op.error_inputs_func is not None and dtype is torch.float32:
        errors(op, tried)
    return tried
