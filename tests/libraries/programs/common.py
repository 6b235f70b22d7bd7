"""What the programs share: attention as a Waldo device computes it, data, and the counters where there are any."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched: models come from configs or from packages

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def attention(device):
    """On the CPU PyTorch fuses attention in another order of additions than the plain form that `cuda` takes here."""
    return sdpa_kernel(SDPBackend.MATH) if torch.device(device).type == "cpu" else sdpa_kernel(list(_ALL))


_ALL = (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def seeded(seed=1):
    """The same numbers on every device: the generators of all devices are at the start of one sequence."""
    torch.manual_seed(seed)


def counted(function):
    """(what it returned, waits, asks) of a function; Waldo's own counters, 0 without Waldo."""
    if "waldo" not in sys.modules:
        return function(), 0, 0
    import waldo

    before = waldo.stats()
    result = function()
    after = waldo.stats()
    return result, after["waits"] - before["waits"], after["asks"] - before["asks"]
