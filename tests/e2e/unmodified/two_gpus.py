"""`--gpus 2`: two devices that copy to each other."""

import torch
from torch import nn


def only_cuda_two_devices(device):
    assert torch.cuda.device_count() == 2
    assert torch.accelerator.device_count() == 2
    x = torch.arange(1000.0)
    a = x.to("cuda:0")
    b = (a * 2).to("cuda:1")
    c = (b + 1).to("cuda:0", non_blocking=True)
    assert (a.get_device(), b.get_device(), c.get_device()) == (0, 1, 0)
    assert torch.equal(c.cpu(), x * 2 + 1)
    assert torch.equal((c + a).cpu(), x * 3 + 1)
    b.mul_(0)
    assert torch.equal(c.cpu(), x * 2 + 1)


def only_cuda_order_across_devices(device):
    """A chain that goes back and forth is only right when each copy comes after what made its source."""
    x = torch.ones(200, 200, device="cuda:0") / 200
    for i in range(20):
        x = (x @ x).to(f"cuda:{(i + 1) % 2}")
        x.add_(i).div_(x.sum())
    y = torch.ones(200, 200) / 200
    for i in range(20):
        y = y @ y
        y.add_(i).div_(y.sum())
    assert torch.equal(x.cpu(), y)


def only_cuda_current_device(device):
    with torch.cuda.device(1):
        assert torch.ones(1, device="cuda").get_device() == 1
        assert torch.cuda.current_device() == 1
    torch.cuda.set_device(1)
    assert torch.ones(1).cuda().get_device() == 1
    torch.cuda.set_device(0)
    x = torch.ones(10, device="cuda:1")
    assert (x + x).get_device() == 1
    assert torch.cuda.memory_allocated(1) >= 40
    torch.cuda.synchronize(1)


def only_cuda_mixing_devices_is_refused(device):
    try:
        torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1")
    except RuntimeError as error:
        assert "Expected all tensors to be on the same device" in str(error)
    else:
        raise AssertionError("nothing was raised")


def only_cuda_a_model_over_two_devices(device):
    first, second = nn.Linear(6, 8), nn.Linear(8, 2)
    x = torch.randn(5, 6)
    reference = second(first(x).relu()).square().sum()
    reference.backward()
    expected = [p.grad.clone() for p in (*first.parameters(), *second.parameters())]
    first.zero_grad()
    second.zero_grad()
    first, second = first.to("cuda:0"), second.to("cuda:1")
    loss = second(first(x.to("cuda:0")).relu().to("cuda:1")).square().sum()
    loss.backward()
    assert loss.item() == reference.item()
    for p, gradient in zip((*first.parameters(), *second.parameters()), expected, strict=True):
        assert torch.equal(p.grad.cpu(), gradient)


def only_cuda_generators_of_each_device(device):
    torch.cuda.manual_seed_all(5)
    a, b = torch.randn(50, device="cuda:0"), torch.randn(50, device="cuda:1")
    assert torch.equal(a.cpu(), b.cpu())
    states = torch.cuda.get_rng_state_all()
    again = torch.randn(50, device="cuda:1").cpu()
    torch.cuda.set_rng_state_all(states)
    assert torch.equal(torch.randn(50, device="cuda:1").cpu(), again)
