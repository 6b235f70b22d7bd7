"""torch.cuda.CUDAGraph: what a capture does not do, and what every replay does."""

import pytest
import torch


def side(function):
    """Runs on a stream of its own, as CUDA wants of what comes before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)


def test_a_capture_changes_nothing_and_a_replay_does():
    x = torch.arange(4.0, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert torch.cuda.is_current_stream_capturing()
        y = x * 2 + 1
        x.add_(1)
        z = y.view(2, 2).t()
    assert not torch.cuda.is_current_stream_capturing()
    assert x.tolist() == [0, 1, 2, 3]
    address = y.data_ptr()
    graph.replay()
    assert y.tolist() == [1, 3, 5, 7]
    assert x.tolist() == [1, 2, 3, 4]
    x.copy_(torch.tensor([10.0, 20, 30, 40]))
    graph.replay()
    assert y.tolist() == [21, 41, 61, 81]
    assert z.tolist() == [[21, 61], [41, 81]]
    assert x.tolist() == [11, 21, 31, 41]
    assert y.data_ptr() == address


def test_a_whole_training_step():
    """Goal: replays train as steps do, to the bit: forward, backward, gradients, optimizer, batch statistics."""

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )
        model.cuda()
        return model, torch.optim.Adam(model.parameters(), 0.05, capturable=True)

    data = torch.randn(5, 4, 6).cuda()
    target = torch.randint(0, 3, (5, 4)).cuda()

    def step(model, optimizer, inputs, wanted):
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(inputs), wanted)
        loss.backward()
        optimizer.step()
        return loss

    model, optimizer = make()
    expected = [step(model, optimizer, data[i], target[i]).item() for i in (0, 0, 0, 1, 2, 3, 4)]

    far, optimizer = make()
    static_inputs, static_wanted = data[0].clone(), target[0].clone()
    side(lambda: [step(far, optimizer, static_inputs, static_wanted) for _ in range(3)])
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = step(far, optimizer, static_inputs, static_wanted)
    found = []
    for i in range(1, 5):
        static_inputs.copy_(data[i])
        static_wanted.copy_(target[i])
        graph.replay()
        found.append(loss.item())
    assert found == expected[3:]
    for (name, here), there in zip(model.state_dict().items(), far.state_dict().values()):
        assert torch.equal(here, there), name


def test_every_replay_draws_anew():
    graph = torch.cuda.CUDAGraph()
    torch.cuda.manual_seed(5)
    with torch.cuda.graph(graph):
        x = torch.rand(6, device="cuda")
    graph.replay()
    first = x.tolist()
    graph.replay()
    assert x.tolist() != first
    torch.cuda.manual_seed(5)
    assert torch.rand(6, device="cuda").tolist() == first


def test_make_graphed_callables():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh()).cuda()
    sample = torch.randn(3, 4, device="cuda", requires_grad=True)
    expected = []
    for i in range(3):
        x = (sample + i).detach().requires_grad_()
        model.zero_grad()
        model(x).square().sum().backward()
        expected.append((x.grad, model[0].weight.grad.clone()))
    model.zero_grad()
    graphed = torch.cuda.make_graphed_callables(model, (sample.detach().clone().requires_grad_(),))
    for i in range(3):
        x = (sample + i).detach().requires_grad_()
        graphed.zero_grad()
        graphed(x).square().sum().backward()
        assert torch.equal(x.grad, expected[i][0])
        assert torch.equal(graphed[0].weight.grad, expected[i][1])


def test_reading_while_capturing_is_refused():
    x = torch.ones(3, device="cuda")
    for read in (lambda: x.sum().item(), x.cpu, x.nonzero):
        graph = torch.cuda.CUDAGraph()
        with pytest.raises(torch.AcceleratorError, match="operation not permitted when stream is capturing"):
            with torch.cuda.graph(graph):
                read()
        assert not torch.cuda.is_current_stream_capturing()
    assert x.tolist() == [1, 1, 1]


def test_misuse_says_what_is_wrong(tmp_path):
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="Called CUDAGraph::replay without a preceding successful capture"):
        graph.replay()
    with pytest.raises(RuntimeError, match="must be captured on a non-default stream"):
        graph.capture_begin()
    pool = torch.cuda.graph_pool_handle()
    with torch.cuda.graph(graph, pool=pool):
        torch.ones(2, device="cuda")
    assert graph.pool() == pool
    with pytest.raises(RuntimeError, match="already owns a captured graph"), torch.cuda.stream(torch.cuda.Stream()):
        graph.capture_begin()
    graph.debug_dump(str(tmp_path / "graph.dot"))
    assert "aten::ones" in (tmp_path / "graph.dot").read_text() or "aten::fill_" in (tmp_path / "graph.dot").read_text()
    with pytest.raises(NotImplementedError, match="raw_cuda_graph is not available on a Waldo device"):
        graph.raw_cuda_graph()
    graph.reset()
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        graph.replay()
    model = torch.nn.Linear(2, 2).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2, device="cuda")).sum().backward()
    with pytest.raises(RuntimeError, match="capturable"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()


@pytest.mark.skipif(not hasattr(torch.accelerator, "Graph"), reason="this PyTorch has none")
def test_accelerator_graph():
    x = torch.zeros(3, device="cuda")
    graph = torch.accelerator.Graph()
    with torch.cuda.stream(torch.cuda.Stream()), graph:
        x += 1
    graph.replay()
    graph.replay()
    assert x.tolist() == [2, 2, 2]
