"""safetensors"""

import tempfile
from pathlib import Path

import safetensors.torch
import torch
from torch import nn


def tensors(device):
    generator = torch.Generator().manual_seed(3)
    made = {"matrix": torch.randn(5, 7, generator=generator), "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
        made[str(dtype)] = (torch.randn(4, 3, generator=generator) * 5).to(dtype)
    return {name: tensor.to(device) for name, tensor in made.items()}


def check_files(device):
    """save_file, load_file(device=…), safe_open with slices: every dtype"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        saved = tensors(device)
        safetensors.torch.save_file(saved, path, {"format": "pt"})
        loaded = safetensors.torch.load_file(path, device=device)
        assert all(t.device.type == device and torch.equal(t, saved[k]) for k, t in loaded.items())
        with safetensors.safe_open(path, "pt", device=device) as file:
            part = file.get_slice("matrix")[1:4, 2:]
            return [sorted(file.keys()), file.metadata(), part, dict(sorted(loaded.items()))]


def check_bytes(device):
    """save and load in memory"""
    data = safetensors.torch.save(tensors(device))
    return [len(data), {k: v.to(device) for k, v in sorted(safetensors.torch.load(data).items())}]


def check_models(device):
    """save_model and load_model, shared weights"""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model = model.to(device)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.safetensors")
        safetensors.torch.save_model(model, path)
        other = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        other[2].weight = other[0].weight
        other = other.to(device)
        safetensors.torch.load_model(other, path, device=device)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
        )
        return other(torch.ones(3, 4).to(device))
