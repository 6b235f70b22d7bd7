"""Random programs of writes through views, `.data`, `out=` and in-place forms, with reads in between: every value equals
the CPU's. A failing program is printed as the list of its steps."""

import torch
from compare import same_bits
from conformance.comparing import same_number
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SIDE = 4  # every base is SIDE x SIDE, so that any view fits any other after taking a corner


def corner(tensor, rows, columns):
    return tensor[:rows, :columns]


VIEWS = {
    "self": lambda t: t,
    "t": lambda t: t.t(),
    "row": lambda t: t[1:2],
    "rows": lambda t: t[::2],
    "columns": lambda t: t[:, 1:3],
    "data": lambda t: t.data,
    "detach": lambda t: t.detach(),
    "flat": lambda t: t.reshape(-1)[3:11].view(2, 4) if t.is_contiguous() else t.t(),
    "strided": lambda t: t.as_strided((2, 3), (1, 2), 1) if t.is_contiguous() and t.numel() >= 8 else t,
    "diagonal": lambda t: t.diagonal().unsqueeze(0),
    "window": lambda t: t.unfold(1, 2, 1)[0] if t.size(1) > 1 else t,
    "expand": lambda t: t[:1].expand(1, t.size(1)),
}
IN_PLACE = {
    "add_": lambda x, y: x.add_(y),
    "mul_": lambda x, y: x.mul_(y),
    "sub_scalar": lambda x, y: x.sub_(1.5),
    "copy_": lambda x, y: x.copy_(y),
    "fill_": lambda x, y: x.fill_(0.75),
    "zero_": lambda x, y: x.zero_(),
    "neg_": lambda x, y: x.neg_(),
    "clamp_": lambda x, y: x.clamp_(-2, 2),
    "set_item": lambda x, y: x.__setitem__((0, 0), y[0, 0]),
    "masked": lambda x, y: x.masked_fill_(y > 0, 0.5),
    "index_put": lambda x, y: x.index_put_((torch.zeros(1, dtype=torch.long, device=x.device),), y[0]),
    "set_number": lambda x, y: x.__setitem__(0, 3.0),
    "data_add": lambda x, y: x.data.add_(y),
    "out_add": lambda x, y: torch.add(x, y, out=x),
    "out_mul": lambda x, y: torch.mul(y, 0.5, out=x),
    "foreach": lambda x, y: torch._foreach_add_([x], [y]),
    "addcmul_": lambda x, y: x.addcmul_(y, y, value=0.25),
    "cumsum_": lambda x, y: x.cumsum_(1),
    "where_out": lambda x, y: torch.where(x > y, x.clone(), y, out=x),
}
NEW = {
    "add": lambda x, y: x + y,
    "clone": lambda x, y: x.clone(),
    "mm": lambda x, y: x @ x.t(),
    "cat": lambda x, y: torch.cat([x, y], 0),
    "contiguous": lambda x, y: x.t().contiguous(),
    "out_new": lambda x, y: torch.add(x, y, out=torch.empty(0, device=x.device)),
    "round_trip": lambda x, y: x.cpu().to(x.device),
    "sum": lambda x, y: x.sum(0, keepdim=True),
}

base = st.integers(0, 2)
view = st.tuples(base, st.lists(st.sampled_from(sorted(VIEWS)), max_size=2))
step = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(sorted(IN_PLACE)), view, view),
    st.tuples(st.just("write"), st.sampled_from(sorted(IN_PLACE)), view, view),
    st.tuples(st.just("make"), st.sampled_from(sorted(NEW)), view, view),
    st.tuples(st.just("read"), view),
    st.tuples(st.just("item"), view),
    st.tuples(st.just("drop"), base),
)


def run(program, device):
    """The values a program reads, ending with all its tensors. What a step raises is a value too."""
    bases = [torch.arange(float(SIDE * SIDE), device=device).view(SIDE, SIDE) * (i + 1) / 8 - 1 for i in range(3)]
    seen = []

    def take(which):
        tensor = bases[which[0]]
        for name in which[1]:
            tensor = VIEWS[name](tensor)
        return tensor

    for kind, *rest in program:
        try:
            if kind == "read":
                seen.append(take(rest[0]).cpu().clone())
            elif kind == "item":
                tensor = take(rest[0])
                seen.append(tensor[-1, -1].item())
            elif kind == "drop":
                bases[rest[0]] = torch.full((SIDE, SIDE), 0.5, device=device)
            else:
                x, y = take(rest[1]), take(rest[2])
                rows, columns = min(x.size(0), y.size(0)), min(x.size(1), y.size(1))
                x, y = corner(x, rows, columns), corner(y, rows, columns)
                # What overlaps itself or its source in part has no defined result, on the CPU either.
                if kind == "write":
                    y = y.clone()
                    IN_PLACE[rest[0]](x, y)
                else:
                    made = NEW[rest[0]](x, y)
                    padded = torch.zeros(SIDE, SIDE, device=device)
                    padded[: made.size(0), : made.size(1)] = made[:SIDE, :SIDE]
                    bases[rest[1][0]] = padded
        except (RuntimeError, IndexError) as error:
            seen.append(type(error).__name__)
    return seen + [b.cpu() for b in bases]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(step, min_size=1, max_size=25))
def test_random_programs_of_writes(program):
    expected, actual = run(program, "cpu"), run(program, "cuda")
    assert len(expected) == len(actual)
    for here, there in zip(expected, actual):
        if isinstance(here, torch.Tensor):
            same_bits(here, there)
        else:
            assert same_number(here, there)
