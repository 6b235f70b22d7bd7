"""torch.compile on `cuda`: values of a compiled program are those of the same program as it is written, on `cuda` and on
the CPU. Nothing is written for a GPU in this machine, so no compiler is needed."""

import pytest
import torch
import waldo
from compare import same


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 8)
        self.mix = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16))
        self.head = torch.nn.Linear(16, 3)

    def forward(self, words):
        return self.head(self.mix(self.table(words)).mean(1))


def trained(device, wrap, steps=3):
    torch.manual_seed(0)
    model = Net().to(device)
    called = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for step in range(steps):
        words = (torch.arange(20).reshape(4, 5) * (step + 1) % 11).to(device)
        loss = torch.nn.functional.cross_entropy(called(words), torch.tensor([0, 1, 2, 1], device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backend": "inductor"},
        {"mode": "reduce-overhead"},
        {"mode": "max-autotune"},
        {"fullgraph": True, "dynamic": True},
        {"options": {"max_autotune": True}},
        {"backend": "eager"},
        {"backend": "aot_eager"},
        {"backend": "cudagraphs"},
    ],
    ids=str,
)
def test_a_compiled_model_trains_as_it_does_without(options):
    plain = trained("cuda", lambda model: model)
    same(trained("cpu", lambda model: model), plain)
    same(plain, trained("cuda", lambda model: torch.compile(model, **options)))


def test_a_compiled_step_waits_for_nothing():
    model = torch.compile(Net().cuda())
    words = torch.zeros(4, 5, dtype=torch.long, device="cuda")
    for _ in range(3):
        model(words).sum().backward()
    before = waldo.stats()["waits"]
    model(words).sum().backward()
    assert waldo.stats()["waits"] == before


def test_a_value_in_the_middle_breaks_the_graph_and_nothing_else():
    def function(x):
        y = x.sin()
        if y.sum().item() > 0:
            return y * 2
        print("negative")
        return y - 1

    compiled = torch.compile(function)
    for x in (torch.ones(3), -torch.ones(3)):
        same(function(x), compiled(x.cuda()))


def test_other_sizes_compile_again_and_then_no_more():
    """Goal: the second size makes a graph for all sizes."""
    from torch._dynamo.utils import counters

    compiled = torch.compile(lambda x: (x @ x.t()).relu().sum(0))
    counters.clear()
    for rows in (3, 5, 7, 9):
        x = torch.randn(rows, 4)
        same((x @ x.t()).relu().sum(0), compiled(x.cuda()))
    assert counters["stats"]["unique_graphs"] == 2


def test_what_a_graph_makes_and_writes():
    """Goal: tensors without an input of theirs, in-place writes, buffers, views of inputs, a device of the user's."""

    def made():
        with torch.cuda.device(1):
            return torch.arange(4.0, device="cuda") * 2

    def written(x):
        x.mul_(3)
        x[1:] += 1
        return x[:2]

    result = torch.compile(made)()
    assert result.device == torch.device("cuda", 1) and result.tolist() == [0, 2, 4, 6]
    x = torch.arange(4.0, device="cuda")
    view = torch.compile(written)(x)
    assert x.tolist() == [0, 4, 7, 10] and view.tolist() == [0, 4]
    view.zero_()
    assert x.tolist() == [0, 0, 7, 10]
    norm, compiled = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3).cuda()
    batch = torch.randn(5, 3)
    same(norm(batch), torch.compile(compiled)(batch.cuda()))
    same(norm.running_var, compiled.running_var)


def test_random_numbers_and_autocast():
    def function(x):
        with torch.autocast("cuda", torch.bfloat16):
            return torch.nn.functional.dropout(x @ x.t(), 0.5)

    x = torch.randn(6, 6, device="cuda")
    torch.manual_seed(1)
    expected = function(x)
    torch.manual_seed(1)
    result = torch.compile(function)(x)
    assert result.is_cuda and result.dtype == torch.bfloat16
    same(expected.cpu(), result)


def test_a_compiled_optimizer_step():
    results = []
    for wrap in (lambda f: f, torch.compile):
        weight = torch.linspace(-1, 1, 6, device="cuda").requires_grad_()
        optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
        step = wrap(optimizer.step)
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            step()
        results.append(weight.detach())
    same(results[0].cpu(), results[1])


def test_what_is_on_the_cpu_is_inductors(monkeypatch):
    import torch._inductor.compile_fx as inductor

    seen = []
    monkeypatch.setattr(inductor, "compile_fx", lambda graph, inputs, **_: seen.append(graph) or graph.forward)
    assert torch.compile(lambda x: x + 1)(torch.zeros(2)).tolist() == [1, 1] and len(seen) == 1
    assert torch.compile(lambda x: x + 1)(torch.zeros(2, device="cuda")).tolist() == [1, 1] and len(seen) == 1


def test_an_error_in_a_compiled_graph_is_the_operators():
    index = torch.tensor([7], device="cuda")
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        torch.compile(lambda x, i: x[i] * 2)(torch.zeros(3, device="cuda"), index).cpu()
    assert (torch.ones(2, device="cuda") + 1).tolist() == [2, 2]
