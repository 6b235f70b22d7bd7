"""What goes wrong, by name; each rank writes what it saw.  python trouble.py OUT CASE"""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def mismatched_shapes(rank):
    tensor = torch.ones(4 + rank, device=f"cuda:{rank}")
    dist.all_reduce(tensor)
    return tensor.sum().item()


def other_collectives(rank):
    tensor = torch.ones(4, device=f"cuda:{rank}")
    if rank == 0:
        dist.all_reduce(tensor)
    else:
        dist.broadcast(tensor, 0)
    return tensor.sum().item()


def goes_on_after_a_mismatch(rank):
    try:
        mismatched_shapes(rank)
    except RuntimeError:
        tensor = torch.ones(3, device=f"cuda:{rank}")
        dist.all_reduce(tensor)
        return tensor.sum().item()
    return "no error"


def reduced_with_a_killed_rank(rank):
    """One reduction that goes well; then rank 1 is gone, and the other's second one is recorded."""
    tensor = torch.ones(4, device=f"cuda:{rank}")
    dist.all_reduce(tensor)
    tensor.cpu()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(tensor)
    return tensor


def killed_rank(rank):
    tensor = reduced_with_a_killed_rank(rank)
    return tensor.sum().item()


def stay_until_the_other_has_said(rank):
    """Alive and doing nothing, so that what the other meets is a rank that does not come, and not one that died."""
    if not said_by[1 - rank].wait(100):
        return "the other never said anything"
    return "stayed"


def missing_rank(rank):
    """One never comes: the group's time (3 s) is up."""
    tensor = torch.ones(4, device=f"cuda:{rank}")
    dist.all_reduce(tensor)
    tensor.cpu()
    if rank == 1:
        return stay_until_the_other_has_said(rank)
    dist.all_reduce(tensor)
    return tensor.sum().item()


def barrier_without_the_other(rank):
    dist.barrier()
    if rank == 1:
        return stay_until_the_other_has_said(rank)
    dist.barrier()
    return "passed"


def after_a_failure(rank):
    """Nothing computed from a failed collective is seen, and the device goes on without the group."""
    tensor = reduced_with_a_killed_rank(rank)
    try:
        print((tensor * 2).cpu())
    except RuntimeError as error:
        kind = type(error).__name__
        alone = torch.arange(3, device=f"cuda:{rank}").sum().item()
        try:
            dist.all_reduce(torch.ones(1, device=f"cuda:{rank}"))
            torch.cuda.synchronize()
        except RuntimeError as again:
            return f"{kind} {alone} {type(again).__name__}"
    return "no error"


def wrong_arguments(rank):
    seen = []
    here = f"cuda:{rank}"
    for run in (
        lambda: dist.all_reduce(torch.ones(4)),
        lambda: dist.all_reduce(torch.ones(4, 4, device=here)[:, :2]),
        lambda: dist.all_gather_into_tensor(torch.ones(5, device=here), torch.ones(2, device=here)),
        lambda: dist.reduce_scatter_tensor(torch.ones(2, device=here), torch.ones(5, device=here)),
        lambda: dist.broadcast(torch.ones(2, device=here), 7),
        lambda: dist.all_reduce(torch.ones(2, dtype=torch.bool, device=here), dist.ReduceOp.AVG),
        lambda: dist.all_reduce(torch.ones(2, dtype=torch.complex64, device=here), dist.ReduceOp.MAX),
        lambda: dist.all_to_all_single(torch.ones(4, device=here), torch.ones(4, device=here), [3, 3], [2, 2]),
    ):
        try:
            run()
            seen.append("no error")
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}".splitlines()[0])
    torch.cuda.synchronize()
    return "\n".join(seen)


said_by = None  # an event per rank: it has written what it saw


def main_rank(rank, out, case, said_events):
    global said_by
    said_by = said_events
    torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl", init_method=f"file://{out}/store", rank=rank, world_size=2, timeout=timedelta(seconds=3)
    )
    begin = time.monotonic()
    try:
        said = str(globals()[case](rank))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    (Path(out) / f"{rank}.txt").write_text(f"{time.monotonic() - begin:.1f}\n{said}")
    said_events[rank].set()
    os._exit(0)


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    (Path(sys.argv[1]) / "store").unlink(missing_ok=True)
    context = mp.get_context("spawn")
    events = [context.Event() for _ in range(2)]
    ranks = [context.Process(target=main_rank, args=(rank, *sys.argv[1:3], events)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
