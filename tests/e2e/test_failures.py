"""When things are wrong: memory, a dead worker, Ctrl-C, forks, late imports. Nothing hangs, nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest
from processes import kill, until, with_environment, workers
from support import WALDO, clean_environment, plain_python, run, waldo_run


@pytest.fixture
def started(tmp_path):
    """started(*arguments) starts `waldo run …` in a session of its own, marked so that all its processes can be found."""
    processes = []

    def start(*arguments, **environment):
        mark = uuid.uuid4().hex
        folder = tmp_path / f"tmp-{mark[:8]}"
        folder.mkdir()
        process = subprocess.Popen(
            [str(word) for word in (WALDO, "run", *arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(TEST_MARK=mark, TMPDIR=folder, **environment),
            start_new_session=True,
        )
        process.mark, process.folder = mark, folder
        processes.append(process)
        return process

    yield start
    for process in processes:
        for pid in with_environment("TEST_MARK", process.mark):
            kill(pid)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def assert_nothing_left(process):
    left = until(lambda: not with_environment("TEST_MARK", process.mark), 5)
    assert left, f"processes left behind: {with_environment('TEST_MARK', process.mark)}"
    assert list(process.folder.iterdir()) == []


# --- out of memory ----------------------------------------------------------------------------------------------------

TRAIN = """
import copy, json, os, sys
import torch
from torch import nn

torch.manual_seed(0)
device, fused, fail_at = sys.argv[1], sys.argv[2] == "fused", 3
model = nn.Sequential(*(m for _ in range(48) for m in (nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU()))).to(device)
if fused:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
else:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def snapshot():
    states = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if v is not None]
    return [v.cpu().clone() for v in (*model.parameters(), *states)]


def calls():
    import waldo
    return waldo.stats()["calls"]


def step(x):
    loss = (model(x) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


failed, called, noticed = None, [0], 0
slow = torch.ones(1500, 1500).to(device)
for i in range(6):
    x = torch.randn(32, 16).to(device)
    if i == fail_at:
        before = snapshot()
        if device == "cpu":  # what a local GPU would leave: the step did not happen; half the batch instead
            step(x[:16])
            continue
        for _ in range(6):  # the worker is busy while the program records the step that will fail
            slow @ slow
        called[0] = calls()
    try:
        loss = step(x)
        if device == "cuda":
            called.append(calls())
        loss.item()
    except torch.OutOfMemoryError as error:
        failed, noticed = str(error), calls() - called[0]
        assert i == fail_at, i
        after = snapshot()
        assert len(after) == len(before) and all(torch.equal(a, b) for a, b in zip(after, before)), "state changed"
        step(x[:16]).item()
final = snapshot()
torch.save({"final": final, "failed": failed, "calls": called, "noticed": noticed}, sys.argv[3])
"""


@pytest.mark.parametrize("kind", ["sgd", "fused"])
def test_out_of_memory_on_the_worker_changes_nothing(tmp_path, script, kind):
    """Goal: a failure on the worker, 300 calls before the program notices, leaves every parameter and optimizer state
    as before the step; training goes on at half the batch.

    Method: a first run tells which call number the fourth step begins with; a second one has the worker fail right
    there. The last state equals that of a CPU run in which the failed step is left out.
    """
    import torch

    program, out = script(TRAIN), tmp_path / "out.pt"
    waldo_run(program, "cuda", kind, out).ok()
    undisturbed = torch.load(out)
    assert undisturbed["failed"] is None
    first, last = undisturbed["calls"][0], undisturbed["calls"][4]
    assert last - first > 320, "the step is too short for this test"

    waldo_run(program, "cuda", kind, out, WALDO_WORKER_FAULT=f"oom@0:{first + 10}").ok()
    ours = torch.load(out)
    assert ours["failed"], "the fault did not come"
    assert "out of memory" in ours["failed"]
    assert ours["noticed"] > 310, "the program noticed too soon for this test"

    plain_python(program, "cpu", kind, out).ok()
    reference = torch.load(out)
    assert all(torch.equal(a, b) for a, b in zip(ours["final"], reference["final"], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours["final"], undisturbed["final"], strict=True))


def test_uncaught_out_of_memory_names_the_operator(script):
    """Goal: the last line of the traceback says what happened and in which operator."""
    program = script(
        "import torch\nx = torch.ones(8, device='cuda')\nfor _ in range(500): x = x + 1\nprint(x.sum().item())\n"
    )
    ran = waldo_run(program, WALDO_WORKER_FAULT="oom@0:100")
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert "OutOfMemoryError" in last
    assert "aten::add" in ran.stderr


# --- a worker that dies -----------------------------------------------------------------------------------------------

BUSY = """
import sys, time
import torch
x = torch.randn(64, 64).cuda()
print("ready", x.sum().item(), flush=True)
{body}
"""


def test_a_killed_worker_is_an_exception(started, script):
    """Goal: within 2 s an exception says that the worker is gone; interpreter and later errors are orderly."""
    program = script(
        BUSY.replace(
            "{body}",
            "try:\n"
            "    while True:\n"
            "        x = x @ x\n"
            "        x = x / x.norm()\n"
            "        x[0, 0].item()\n"
            "except torch.AcceleratorError as error:\n"
            "    print('caught', type(error).__mro__, error, flush=True)\n"
            "    try:\n"
            "        (x + 1).cpu()\n"
            "    except RuntimeError as again:\n"
            "        print('again', again, flush=True)\n"
            "    print(torch.ones(2).sum().item(), flush=True)\n",
        )
    )
    process = started(program)
    assert process.stdout.readline().startswith("ready")
    (worker,) = workers("TEST_MARK", process.mark)
    kill(worker)
    killed = time.monotonic()
    line = process.stdout.readline()
    assert time.monotonic() - killed < 2
    assert line.startswith("caught")
    assert "worker" in line
    assert "DeviceLostError" in line
    assert process.stdout.readline().startswith("again")
    assert process.stdout.readline() == "2.0\n"
    assert process.wait(10) == 0
    assert_nothing_left(process)


@pytest.mark.parametrize("waiting", ["torch.cuda.synchronize()", "x.sum().item()", "x.cpu()"])
def test_a_worker_killed_during_a_wait(started, script, waiting):
    """Goal: a thread that waits when the worker dies is released; the program ends with exit code 9."""
    body = f"for _ in range(4000): x = x @ x\nprint('waiting', flush=True)\n{waiting}\n"
    process = started(
        script(
            BUSY.replace("{body}", body.replace("x @ x", "(y @ y)")).replace(
                "x = torch", "y = torch.ones(900, 900).cuda()\nx = torch", 1
            )
        )
    )
    assert process.stdout.readline().startswith("ready")
    assert process.stdout.readline() == "waiting\n"
    (worker,) = workers("TEST_MARK", process.mark)
    kill(worker)
    killed = time.monotonic()
    stderr = process.stderr.read()
    assert process.wait(10) == 9, stderr
    assert time.monotonic() - killed < 4, "the exception, then the end of the interpreter"
    assert "worker" in stderr.strip().splitlines()[-1]
    assert_nothing_left(process)


# --- interrupts -------------------------------------------------------------------------------------------------------

LONG = """
import os, signal, sys, threading, time
import torch
x = torch.ones(700, 700).cuda() / 700
print("ready", x.sum().item(), flush=True)
"""


def test_ctrl_c_ends_it(started, script):
    """Goal: Ctrl-C in the terminal (the whole process group) ends program and worker at once; exit code 130."""
    process = started(script(LONG + "for _ in range(3000): x = x @ x\nprint('waiting', flush=True)\nx.sum().item()\n"))
    assert process.stdout.readline().startswith("ready")
    assert process.stdout.readline() == "waiting\n"
    os.killpg(process.pid, signal.SIGINT)
    pressed = time.monotonic()
    stderr = process.stderr.read()
    assert process.wait(10) == 130, stderr
    assert time.monotonic() - pressed < 5
    assert "KeyboardInterrupt" in stderr
    assert_nothing_left(process)


def test_an_interrupted_cell_leaves_the_session_usable(script):
    """Goal: as in a notebook: KeyboardInterrupt out of a long wait, then tensors and session go on."""
    ran = waldo_run(
        script(
            LONG
            + """
y = x
for _ in range(300):
    y = y @ y
try:
    began = time.monotonic()
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    y.sum().item()
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - began < 2.5)
print((x[0, 0] * 700).item(), y.sum().item() > 0, torch.ones(3).cuda().tolist())
"""
        )
    ).ok()
    assert ran.stdout.splitlines()[1:] == ["interrupted True", "1.0 True [1.0, 1.0, 1.0]"]


# --- processes of the program -----------------------------------------------------------------------------------------


def test_a_forked_child_gets_cuda_s_own_error(script):
    """Goal: what CUDA says in a forked child; the parent's session lives on."""
    ran = waldo_run(
        script("""
import os
import torch
x = torch.ones(3).cuda()
x.sum().item()
pid = os.fork()
if pid == 0:
    code = 1
    for use in (lambda: torch.ones(1, device="cuda"), lambda: x + 1, lambda: x.cpu()):
        try:
            use()
        except RuntimeError as error:
            print(error, flush=True)
            code = 0
    del x
    os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
print("parent", (x + 1).tolist())
""")
    ).ok()
    lines = ran.stdout.splitlines()
    assert "Cannot re-initialize CUDA in forked subprocess" in lines[0]
    assert sum("forked subprocess" in line for line in lines) >= 3
    assert lines[-1] == "parent [2.0, 2.0, 2.0]"


LOADER = """
import sys
import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    x = torch.ones(3).cuda()
    x.sum().item()
    data = TensorDataset(torch.arange(80.0))
    loader = DataLoader(data, 5, num_workers=4, multiprocessing_context=sys.argv[1], persistent_workers=True)
    total = torch.zeros((), device="cuda")
    for i, (batch,) in enumerate(loader):
        total += batch.cuda(non_blocking=True).sum()
        if i == 8:
            print("middle", flush=True)
            sys.stdin.readline() if not sys.stdin.isatty() else None
    del loader
    print("end", (total + x.sum()).item(), flush=True)


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_processes_start_no_worker(started, script, context):
    """Goal: four forked or spawned DataLoader workers start no worker of ours, and their end leaves the session alive."""
    program = script(LOADER.replace("            sys.stdin.readline() if not sys.stdin.isatty() else None\n", ""))
    process = started(program, context)
    assert process.stdout.readline() == "middle\n"
    assert len(workers("TEST_MARK", process.mark)) <= 1
    assert process.stdout.readline() == f"end {sum(range(80)) + 3.0}\n"
    assert process.wait(30) == 0, process.stderr.read()
    assert_nothing_left(process)


# --- said in one line -------------------------------------------------------------------------------------------------


def test_connect_after_torch(script):
    """Goal: too late is said clearly, with what to do."""
    ran = plain_python(script("import torch\nimport waldo\nwaldo.connect('local')\n"))
    assert ran.returncode == 1
    assert "before" in ran.stderr
    assert "import torch" in ran.stderr


def test_connect_before_torch(script):
    """Goal: the notebook's way: connect, then import torch."""
    program = script(
        "import waldo\nwaldo.connect('local')\nimport torch\nprint(torch.ones(2, device='cuda').tolist())\n"
    )
    assert plain_python(program).ok().stdout == "[1.0, 1.0]\n"


def test_the_environment_is_enough(script):
    """Goal: WALDO_ON=local python train.py, without `waldo run`; WALDO_GPUS says how many."""
    program = script("import torch\nprint(torch.cuda.device_count(), torch.ones(2, device='cuda').tolist())\n")
    assert plain_python(program, WALDO_ON="local").ok().stdout == "1 [1.0, 1.0]\n"
    assert plain_python(program, WALDO_GPUS="2").ok().stdout == "2 [1.0, 1.0]\n"


def test_without_it_python_is_plain(script):
    """Goal: installed and not asked for, nothing of us is loaded."""
    program = script(
        "import sys, torch\nprint(torch.cuda.is_available(), [m for m in sys.modules if 'waldo' in m])\n"
        "print('waldo' in open('/proc/self/maps').read())\n"
    )
    assert plain_python(program).ok().stdout == "False []\nFalse\n"


def test_the_start_up_hook_costs_less_than_a_millisecond():
    """Goal: under 1 ms at interpreter start when the variables are unset. Method: what -X importtime says of the line."""
    ran = run([sys.executable, "-X", "importtime", "-c", "pass"]).ok()
    assert not re.search(r"\bwaldo\b", ran.stderr)


def test_the_exit_code_is_the_program_s(script):
    """Goal: exit codes pass through, and so do arguments and stdout."""
    ran = waldo_run(script("import sys\nprint(sys.argv[1:])\nsys.exit(7)\n"), "--epochs", "3", "-c")
    assert ran.returncode == 7
    assert ran.stdout == "['--epochs', '3', '-c']\n"
    assert (
        waldo_run("-c", "import torch; print(torch.ones(2, device='cuda'))").ok().stdout
        == "tensor([1., 1.], device='cuda:0')\n"
    )
    assert waldo_run("-m", "platform").ok().stdout


def test_one_line_says_where_the_device_is(script):
    """Goal: the embedded worker is named on stderr, in one line."""
    ran = waldo_run(script("import torch\nprint(torch.ones(2).cuda().tolist())\n")).ok()
    lines = [line for line in ran.stderr.splitlines() if line.startswith("waldo:")]
    assert len(lines) == 1
    assert "cuda:0" in lines[0]
