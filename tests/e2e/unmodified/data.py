"""DataLoader with workers and pin_memory."""

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Squares(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        worker = torch.utils.data.get_worker_info()
        return {"x": torch.full((3,), float(i * i)), "i": i, "worker": -1 if worker is None else worker.id}


def check_plain_loader(device):
    data = TensorDataset(torch.randn(50, 4), torch.randint(3, (50,)))
    loader = DataLoader(data, 8, shuffle=True, pin_memory=device.startswith("cuda"))
    return [[x.to(device, non_blocking=True), y.to(device, non_blocking=True)] for x, y in loader]


def check_forked_workers(device):
    before = torch.randn(4, 3).to(device)
    loader = DataLoader(
        Squares(), 4, shuffle=True, num_workers=4, pin_memory=device.startswith("cuda"), multiprocessing_context="fork"
    )
    out = []
    for _ in range(2):
        for batch in loader:
            assert batch["x"].is_pinned() == device.startswith("cuda")
            out.append([batch["x"].to(device, non_blocking=True) + before, batch["i"].to(device), batch["worker"]])
    return [*out, before * 2]


def check_persistent_workers(device):
    loader = DataLoader(Squares(), 5, num_workers=2, persistent_workers=True, pin_memory=device.startswith("cuda"))
    return [[batch["x"].to(device).sum() for batch in loader] for _ in range(3)]


def check_spawned_workers(device):
    x = torch.ones(1).to(device)
    loader = DataLoader(Squares(), 10, num_workers=4, multiprocessing_context="spawn")
    return [[batch["x"].to(device) + x for batch in loader], x]
