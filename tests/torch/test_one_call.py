"""A compiled graph is one call to the worker after its first runs, and nobody can tell by anything but the count."""

import functools
import threading

import pytest
import torch
import waldo
from compare import same
from waldo._torch import native

RUNS = 5  # the first ones ask what operators make, and make the graph


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(False)


def calls_of(function):
    before = waldo.stats()["calls"]
    result = function()
    return waldo.stats()["calls"] - before, result


def layers(x, weight, bias):
    for _ in range(10):
        x = torch.nn.functional.gelu(x @ weight + bias).softmax(-1)
    return x


def test_ten_layers_are_one_call():
    arguments = [torch.randn(4, 6), torch.randn(6, 6), torch.randn(6)]
    expected = layers(*arguments)
    far = [argument.cuda() for argument in arguments]
    compiled = torch.compile(layers)
    counts = []
    for _ in range(RUNS):
        count, result = calls_of(lambda: compiled(*far))
        counts.append(count)
        same(expected, result)
    assert counts[0] >= 40 and counts[-1] == 1


def test_forward_and_backward_are_one_each():
    model = torch.nn.Sequential(*[torch.nn.Linear(5, 5) for _ in range(6)]).cuda()
    compiled, x = torch.compile(model), torch.randn(3, 5, device="cuda")
    for _ in range(RUNS):
        count, result = calls_of(lambda: compiled(x))
        ones = torch.ones_like(result)
        model.zero_grad()
        backward, _ = calls_of(functools.partial(result.backward, ones))
    assert count == 1 and backward == 1
    plain = model(x)
    gradients = torch.autograd.grad(plain, list(model.parameters()), ones)
    for parameter, gradient in zip(model.parameters(), gradients):
        same(gradient.cpu(), parameter.grad)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        self.head = torch.nn.Linear(4 * 36, 3)

    def forward(self, images):
        hidden = torch.nn.functional.dropout(self.mix(images).flatten(1), 0.3, self.training)
        return self.head(hidden)


def trained(wrap, device="cuda", steps=8):
    torch.manual_seed(0)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    images, wanted = torch.randn(steps, 6, 1, 6, 6).to(device), torch.randint(0, 3, (steps, 6)).to(device)

    def step(images, wanted):
        return torch.nn.functional.cross_entropy(model(images), wanted)

    losses, called = [], wrap(step)
    for i in range(steps):
        optimizer.zero_grad()
        loss = called(images[i].clone(), wanted[i].clone())
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, list(model.state_dict().values())


def test_training_with_random_numbers_and_statistics_is_the_same_to_the_bit():
    same([value.cpu() for value in trained(lambda step: step)[0]], trained(torch.compile)[0])
    same([value.cpu() for value in trained(lambda step: step)[1]], trained(torch.compile)[1])


def test_a_change_of_an_argument_is_seen_by_autograd_each_time():
    def grow(x):
        x.mul_(2)
        return x + 1

    compiled = torch.compile(grow)
    for _ in range(RUNS):
        x = torch.ones(3, device="cuda")
        saved = torch.ones(3, device="cuda", requires_grad=True) * x  # backward wants x as it is now
        before = x._version
        with torch.no_grad():
            assert compiled(x).tolist() == [3, 3, 3]
        assert x._version > before and x.tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            saved.sum().backward()


def test_results_that_are_views_of_arguments_and_of_each_other():
    def views(x):
        y = x * 2
        return x.t(), y, y[1:], y.view(-1)[:2]

    compiled = torch.compile(views)
    for _ in range(RUNS):
        x = torch.arange(6.0, device="cuda").view(2, 3)
        turned, whole, rest, first = compiled(x)
        x.zero_()
        assert turned.sum().item() == 0
        whole.add_(1)
        assert rest.tolist() == [[7, 9, 11]] and first.tolist() == [1, 3]
        assert rest._base is not None or rest.data_ptr() == whole.data_ptr() + 12


def test_arguments_that_share_memory_are_not_those_that_do_not():
    def both(x, y):
        x.add_(1)
        return x * y

    compiled = torch.compile(both)
    for _ in range(RUNS):
        x, y = torch.ones(2, device="cuda"), torch.ones(2, device="cuda")
        assert compiled(x, y).tolist() == [2, 2]
        same_one = torch.ones(2, device="cuda")
        assert compiled(same_one, same_one).tolist() == [4, 4]


def test_sizes_that_come_back_are_one_call():
    compiled = torch.compile(lambda x: (x @ x.t()).relu().sum(0), dynamic=True)
    counts = []
    for _ in range(RUNS):
        for rows in (3, 5, 7):
            x = torch.randn(rows, 4)
            far = x.cuda()
            count, result = calls_of(lambda far=far: compiled(far))
            same((x @ x.t()).relu().sum(0), result)
            counts.append(count)
    assert counts[-3:] == [1, 1, 1]


def test_a_number_on_the_cpu_is_looked_at_each_time():
    compiled = torch.compile(lambda x, scale: (x * scale).sin() + 1)
    for scale in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        result = compiled(torch.ones(2, device="cuda"), torch.tensor(scale))
        same(torch.ones(2).mul(torch.tensor(scale)).sin() + 1, result)


def test_an_operator_of_the_users_runs_each_time():
    seen = []

    @torch.library.custom_op("waldo_test::noted", mutates_args=())
    def noted(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x * 2

    @noted.register_fake
    def _(x):
        return torch.empty_like(x)

    compiled = torch.compile(lambda x: torch.ops.waldo_test.noted(x + 1) * 3)
    for _ in range(RUNS):
        assert compiled(torch.ones(2, device="cuda")).tolist() == [12, 12]
    assert len(seen) == RUNS


def test_memory_that_a_graph_needs_while_it_runs_is_counted():
    def wide(x):
        return (x.expand(1 << 20, 2).contiguous() * 2).sum(0)

    compiled, peaks = torch.compile(wide), []
    for _ in range(RUNS):
        x = torch.ones(2, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        assert compiled(x).tolist() == [1 << 21, 1 << 21]
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[-1] >= 8 << 20 and peaks[-1] <= peaks[0]
    try:
        torch.cuda.set_per_process_memory_fraction(1e-9)
        with pytest.raises(torch.OutOfMemoryError):
            compiled(x)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert compiled(x).tolist() == [1 << 21, 1 << 21]


def test_a_failed_operator_is_named_and_the_next_run_is_well():
    compiled = torch.compile(lambda x, i: x.mul(2)[i].sum())
    x, good, bad = (torch.tensor(v, device="cuda") for v in ([1.0, 2, 3], [0, 2], [0, 7]))
    for _ in range(RUNS):
        assert compiled(x, good).item() == 8
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        compiled(x, bad).item()
    count, result = calls_of(lambda: compiled(x, good))
    assert count == 2 and result.item() == 8  # the flags are sent once more


def test_flags_that_change_are_minded():
    compiled = torch.compile(lambda x, i: torch.zeros(3, device="cuda").index_add(0, i, x) * 2)
    x, i = torch.ones(4, device="cuda"), torch.tensor([0, 1, 1, 2], device="cuda")
    for deterministic in (False, False, False, True, True, True, False):
        torch.use_deterministic_algorithms(deterministic)
        assert compiled(x, i).tolist() == [2, 4, 2]


def test_a_profile_shows_each_operator():
    compiled = torch.compile(lambda x: x.sin().cos() @ x.t())
    x = torch.randn(3, 3, device="cuda")
    for _ in range(RUNS):
        compiled(x)
    with torch.profiler.profile() as profile:
        compiled(x)
    names = {event.name for event in profile.events()}
    assert {"aten::sin", "aten::cos", "aten::mm"} <= names


def test_several_threads():
    compiled = torch.compile(layers)
    weight, bias = torch.randn(6, 6, device="cuda"), torch.randn(6, device="cuda")
    wrong = []

    def work(seed):
        x = torch.full((4, 6), float(seed), device="cuda")
        expected = layers(x, weight, bias).cpu()
        for _ in range(20):
            if not torch.equal(compiled(x, weight, bias).cpu(), expected):
                wrong.append(seed)

    compiled(torch.ones(4, 6, device="cuda"), weight, bias)  # dynamo compiles once
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_captured_graph_is_one_call():
    x = torch.ones(4, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layers(x.expand(4, 4), torch.eye(4, device="cuda"), x)
        x.add_(1)
    for _ in range(RUNS):
        expected = layers(x.cpu().expand(4, 4), torch.eye(4), x.cpu())
        count, _ = calls_of(graph.replay)
        same(expected, y)
    assert count == 1 and x.tolist() == [6, 6, 6, 6]


# What PyTorch's own guards keep from a compiled graph, of the graph itself.


def graph_of(function, *arguments):
    graph = native.get().Graph()
    for _ in range(3):
        assert graph.begin(arguments)
        if graph.end(function(*arguments)) is None:
            return graph
    raise AssertionError("no graph")


def test_shared_memory_sizes_offsets_and_dtypes_are_other_looks():
    graph = graph_of(lambda x, y: (x.add_(1) * y,), torch.ones(2, device="cuda"), torch.ones(2, device="cuda"))
    x = torch.ones(4, device="cuda")
    assert graph.run([x[:2], x[:2]]) is None and graph.run([x[:2], x[2:]]) is None
    assert graph.run([torch.ones(3, device="cuda"), torch.ones(3, device="cuda")]) is None
    assert graph.run([torch.ones(2, device="cuda"), torch.ones(2, dtype=torch.double, device="cuda")]) is None
    assert graph.run([torch.ones(2, device="cuda"), torch.ones(2)]) is None
    assert graph.run([torch.ones(2, device="cuda"), torch.ones(2, device="cuda:1")]) is None
    assert graph.run([torch.ones(2, device="cuda"), torch.ones(2, device="cuda", requires_grad=True)]) is None
    assert x.tolist() == [1, 1, 1, 1]
    (result,) = graph.run([torch.ones(2, device="cuda"), torch.full((2,), 3.0, device="cuda")])
    assert result.tolist() == [6, 6] and len(graph) == 1


def test_versions_rise_as_they_did():
    def change(x):
        x.add_(1).mul_(2)
        return ()

    graph = graph_of(change, torch.ones(2, device="cuda"))
    x = torch.ones(2, device="cuda")
    before = x._version
    assert graph.run([x]) == () and x._version == before + 2 and x.tolist() == [4, 4]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.sum().item(),),
        lambda x: (x.cpu(),),
        lambda x: (x + torch.ones(2).cuda(),),
        lambda x: (x.nonzero(),),
        lambda x: (elsewhere() + x,),
        lambda x: (x.to("cuda:1"),),
    ],
)
def test_what_looks_at_values_or_comes_from_elsewhere_is_no_graph(function):
    x = torch.ones(2, device="cuda")
    elsewhere()
    with pytest.raises(AssertionError, match="no graph"):
        graph_of(function, x)
    assert (x + 1).tolist() == [2, 2]


KEPT = []


def elsewhere():
    if not KEPT:
        KEPT.append(torch.ones(2, device="cuda"))
        KEPT.append(torch.ones(2, device="cuda"))
    KEPT.reverse()
    return KEPT[0]
