"""What a step costs: how often the program waits, and that nothing is computed on the client."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
import waldo
from torch import nn


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    )


def mlp():
    return nn.Sequential(nn.Linear(64, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 3))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0][:, -1])


def attention():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (8, 8)), layer, nn.Flatten(), nn.Linear(64, 3))


STEPS = {
    "cnn": (cnn, lambda: torch.randn(5, 1, 8, 8)),
    "mlp": (mlp, lambda: torch.randn(5, 64)),
    "lstm": (Recurrent, lambda: torch.randint(0, 7, (5, 6))),
    "transformer": (attention, lambda: torch.randn(5, 64)),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
}


def make_step(model, optimizer):
    make, data = STEPS[model]
    module = make().cuda()
    optim = OPTIMIZERS[optimizer](module.parameters())

    def step():
        x, y = data().cuda(), torch.randint(0, 3, (5,)).cuda()
        optim.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optim.step()
        return loss

    return step


def waits_of(function):
    gc.collect()
    torch.cuda.synchronize()
    before = waldo.stats()
    function()
    after = waldo.stats()
    return after["waits"] - before["waits"], after["asks"] - before["asks"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", STEPS)
def test_a_step_without_a_read_does_not_wait(model, optimizer):
    step = make_step(model, optimizer)
    for _ in range(3):
        step()
    waits, asks = waits_of(lambda: [step() for _ in range(5)])
    assert (waits, asks) == (0, 0)


@pytest.mark.parametrize("model", STEPS)
def test_one_item_is_one_wait(model):
    step = make_step(model, "adamw")
    for _ in range(3):
        step().item()
    waits, _ = waits_of(lambda: [step().item() for _ in range(5)])
    assert waits == 5


def test_gradscaler_waits_once_a_step():
    module = mlp().cuda()
    optim = torch.optim.SGD(module.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda")

    def step():
        optim.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = module(torch.randn(5, 64).cuda()).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optim)
        scaler.update()

    for _ in range(3):
        step()
    assert waits_of(lambda: [step() for _ in range(5)])[0] == 5


def test_clipping_and_masks_written_do_not_wait():
    module = mlp().cuda()
    x = torch.randn(5, 64).cuda()
    mask = torch.rand(5, 64).cuda() > 0.5

    def step():
        x[mask] = 0.5
        module(x).sum().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        module.zero_grad()

    for _ in range(3):
        step()
    assert waits_of(step) == (0, 0)


def test_sizes_seen_before_do_not_wait():
    def use(n):
        x = torch.randn(n, 6).cuda()
        (F.layer_norm(x, (6,)) @ x.t()).softmax(1).sum()

    for n in (3, 5, 7):
        use(n)
    assert waits_of(lambda: [use(n) for n in (5, 3, 7)]) == (0, 0)


def cpu_operators(profiled):
    """Names of the operators that ran on CPU tensors with elements, on any thread, as RecordFunction saw them."""
    from torch._C._profiler import _EventType, _TensorMetadata

    names, events = set(), list(profiled.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag != _EventType.TorchOp:
            continue
        for value in event.extra_fields.inputs:
            for tensor in value if isinstance(value, list) else [value]:
                if isinstance(tensor, _TensorMetadata) and tensor.device.type == "cpu" and tensor.sizes:
                    names.add(event.name)
    return names


def test_nothing_is_computed_on_the_client():
    module = cnn().cuda()
    optim = torch.optim.AdamW(module.parameters(), 0.01)
    x, y = torch.randn(5, 1, 8, 8).cuda(), torch.randint(0, 3, (5,)).cuda()

    def step():
        optim.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optim.step()

    step()
    here = torch.ones(3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiled:
        step()
        here + 1  # so that the observer is known to see
    assert cpu_operators(profiled) == {"aten::add"}


def test_plans_are_shared_by_modules_of_one_shape():
    torch.cuda.synchronize()
    one = nn.Linear(6, 4).cuda()
    one(torch.randn(2, 6).cuda()).sum().backward()
    before = waldo.stats()["plans"]
    other = copy.deepcopy(one)
    other(torch.randn(2, 6).cuda()).sum().backward()
    assert waldo.stats()["plans"] - before <= 2, "only what deepcopy does is new"
