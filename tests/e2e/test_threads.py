"""torch.set_num_threads of a program is its embedded worker's too."""

from support import plain_python, waldo_run

SUMS = """
import hashlib, sys, torch
device, connect_first = sys.argv[1], sys.argv[2] == "connect"
torch.manual_seed(0)
x = torch.randn(1 << 20)
if connect_first:
    x = x.to(device)
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    print(threads, hashlib.md5(x.to(device).sum().cpu().numpy().tobytes()).hexdigest())
"""


def test_the_worker_computes_with_as_many_threads(script):
    """Goal: the same bits as plain CPU for each number of threads, set before the first use of the device or later.

    Method: a sum of a million numbers, whose last bits depend on how many threads share it.
    """
    for when in ("connect", "later"):
        plain = plain_python(script(SUMS), "cpu", when).ok().stdout
        assert len({line.split()[1] for line in plain.splitlines()}) > 1, "this sum shows nothing"
        assert waldo_run(script(SUMS), "cuda", when).ok().stdout == plain


FAILED = """
import hashlib, sys, torch, waldo
torch.manual_seed(0)
x = torch.randn(1 << 20)
there, slow = x.cuda(), torch.ones(1500, 1500).cuda()
there.sum().item()
for _ in range(4):  # the worker is busy while what follows is recorded
    slow @ slow
print(waldo.stats()["calls"] + 1, file=sys.stderr)
there + 1  # fails
torch.set_num_threads(3)
there.sum()  # would take the number along; it is dropped
try:
    torch.cuda.synchronize()
except torch.OutOfMemoryError:
    print("failed")
same = there.sum().cpu() == x.sum()
torch.set_num_threads(1)
print(same.item(), there.sum().item() == x.sum().item())
"""


def test_a_failure_does_not_lose_the_number(script):
    """Goal: flags and threads that were recorded behind a call that fails are told to the worker again."""
    program = script(FAILED)
    number = waldo_run(program, options=["-q"]).ok().stderr.strip()
    assert waldo_run(program, WALDO_WORKER_FAULT=f"oom@0:{number}").ok().stdout == "failed\nTrue True\n"


def test_a_worker_elsewhere_keeps_its_own():
    """Goal: for another target the function is PyTorch's own."""
    code = "import torch; torch.set_num_threads(2); print(torch.set_num_threads is torch._C.set_num_threads)"
    for target, own in (("lab", "True"), ("local", "False")):
        assert plain_python("-c", code, WALDO_ON=target).ok().stdout == own + "\n"
