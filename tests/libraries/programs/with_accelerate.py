"""Hugging Face accelerate"""

import tempfile

import torch
from accelerate import Accelerator, init_empty_weights, load_checkpoint_and_dispatch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from common import TORCHRUN, two_processes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DIFFERENT = {
    "check_bf16": (5e-3, "autocast on CUDA keeps other operators in float32 (layer_norm) than on the CPU"),
}


def model():
    set_seed(3)
    return nn.Sequential(nn.Linear(12, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 3))


def train(device, epochs=2, **how):
    AcceleratorState._reset_state(reset_partial_state=True)  # one process, several Accelerators
    accelerator = Accelerator(cpu=device == "cpu", **how)
    assert accelerator.device.type == device
    network = model()
    x = torch.randn(40, 12, generator=torch.Generator().manual_seed(5))
    loader = DataLoader(
        TensorDataset(x, x[:, :3].argmax(1)), 8, shuffle=True, generator=torch.Generator().manual_seed(6)
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    network, optimizer, loader, schedule = accelerator.prepare(network, optimizer, loader, schedule)
    losses = []
    for _ in range(epochs):
        for x, y in loader:
            with accelerator.accumulate(network):
                loss = nn.functional.cross_entropy(network(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(accelerator.gather_for_metrics(loss).mean().item())
    return accelerator, network, losses


def check_train(device):
    """Accelerator: prepare, accumulate, clip, schedule, gather_for_metrics"""
    accelerator, network, losses = train(device, gradient_accumulation_steps=2)
    return [losses, accelerator.unwrap_model(network).state_dict()]


def check_bf16(device):
    """Accelerator(mixed_precision="bf16")"""
    return train(device, mixed_precision="bf16")[2]


def only_cuda_fp16(device):
    """Accelerator(mixed_precision="fp16"): it learns, and the scaler's scale is there"""
    accelerator, _, losses = train(device, epochs=6, mixed_precision="fp16")
    assert accelerator.scaler.get_scale() > 0
    assert sum(losses[-5:]) < sum(losses[:5])


def check_state(device):
    """save_state and load_state"""
    with tempfile.TemporaryDirectory() as folder:
        accelerator, network, _ = train(device, epochs=1)
        accelerator.save_state(folder)
        saved = [p.detach().clone() for p in network.parameters()]
        with torch.no_grad():
            for p in network.parameters():
                p.zero_()
        accelerator.load_state(folder)
        assert all(torch.equal(a, b) for a, b in zip(saved, network.parameters(), strict=True))
        return saved


def check_empty_weights(device):
    """init_empty_weights, then load_checkpoint_and_dispatch onto the device"""
    with tempfile.TemporaryDirectory() as folder:
        Accelerator(cpu=device == "cpu").save_model(model(), folder)
        with init_empty_weights():
            empty = model()
        loaded = load_checkpoint_and_dispatch(empty, folder, device_map={"": device})
        return loaded(torch.ones(2, 12).to(device))


def check_launch(device):
    """accelerate launch --multi_gpu --num_processes 2: prepare, accumulate, clip, gather (the CPU's two ranks: torchrun)"""
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0")
    more = ("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    return two_processes(device, "launched_accelerate.py", (*launcher, *more) if device == "cuda" else TORCHRUN)
