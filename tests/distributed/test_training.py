"""Data-parallel training on two far devices equals plain PyTorch with Gloo, to the bit."""

import torch
from support import waldo_run


def test_ddp_in_its_variants(both):
    far, plain = both("ddp.py")
    for rank in range(2):
        for name, expected in plain[rank].items():
            got = far[rank][name]
            for i, (a, b) in enumerate(zip(got, expected, strict=True)):
                assert a.dtype == b.dtype and torch.equal(a, b), f"{name}, value {i}, rank {rank}: {a} is not {b}"
    for name, values in far[0].items():
        if name not in ("sampler", "scaler", "buffers"):  # losses and running means differ, parameters must not
            assert all(torch.equal(a, b) for a, b in zip(values[4:], far[1][name][4:], strict=True)), name


def test_sharded_models(both):
    far, plain = both("sharded.py")
    for rank in range(2):
        for name, expected in plain[rank].items():
            for i, (a, b) in enumerate(zip(far[rank][name], expected, strict=True)):
                assert a.dtype == b.dtype and torch.equal(a, b), f"{name}, value {i}, rank {rank}: {a} is not {b}"
        for got, expected in far[rank]["sync batch norm"]:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_data_parallel(program):
    waldo_run(program("data_parallel.py"), options=["--gpus=3"], OMP_NUM_THREADS=1).ok()
