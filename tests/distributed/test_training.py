"""Data-parallel training on two far devices equals plain PyTorch with Gloo, to the bit."""

import torch
from support import plain_python, waldo_run


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


def test_backward_goes_on_while_buckets_are_reduced(both):
    """Goal: the reductions of earlier buckets hold up no operator of backward.

    Method: they cannot end, since the other rank has not begun its backward, until the last gradient has been read."""
    far, plain = both("overlap.py")
    events = far[0]["events"]
    last = events.index("last gradient True")
    assert last >= 2 and len(events) > last + 1, events  # all others are buckets: before it, and its own
    for rank in range(2):
        assert far[rank]["events"] == plain[rank]["events"]
        for a, b in zip(far[rank]["gradients"], plain[rank]["gradients"], strict=True):
            assert torch.equal(a, b)


def test_cut_links_change_nothing(host, program, tmp_path):
    """Goal: ranks whose links are cut in the middle of training, in their steps and collectives, give the same bits."""
    host.set("cuts", 60_000, 70_000, *[30_000, 20_000] * 3, *[10**12] * 100)
    host.run(program("training.py"), tmp_path / "cut", 2, options=["--gpus=2"], OMP_NUM_THREADS=1).ok()
    plain_python(program("training.py"), tmp_path / "plain", 2, OMP_NUM_THREADS=1).ok()
    assert len(host.links()) >= 8, "the links were not cut"
    for rank in range(2):
        cut, plain = (torch.load(tmp_path / where / f"{rank}.pt") for where in ("cut", "plain"))
        assert cut["losses"] == plain["losses"]
        assert all(torch.equal(a, b) for a, b in zip(cut["model"], plain["model"], strict=True))
