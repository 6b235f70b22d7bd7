"""The command line: what it says, its exit codes, and what it leaves behind. No program here needs a device but where
the test's name says so."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from processes import kill, running, until, with_environment, workers
from support import WALDO, clean_environment, run, waldo_run

TOUCH = "import torch\nx = torch.ones(2).cuda()\nprint('ready', x.tolist(), flush=True)\n"
FOR_EVER = TOUCH + "import signal\nsignal.pause()\n"


def one_line(ran, code):
    """The single line that `waldo` said, when it failed with this exit code."""
    assert ran.returncode == code, ran.stderr
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("waldo: ")
    return lines[0]


@pytest.fixture
def state():
    """A state folder with a short path, as sockets need it; what runs there ends with the test."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        yield folder
        run([WALDO, "down", "-q"], XDG_STATE_HOME=folder)


@pytest.fixture
def started():
    """started(*words, **environment): a command of ours that runs in a session of its own and can be found by its mark."""
    processes = []

    def start(*words, **environment):
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [str(word) for word in (WALDO, *words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(TEST_MARK=mark, **environment),
            start_new_session=True,
        )
        process.mark = mark
        processes.append(process)
        return process

    yield start
    for process in processes:
        for pid in with_environment("TEST_MARK", process.mark):
            kill(pid)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def nothing_left(process, seconds=5):
    until(lambda: not with_environment("TEST_MARK", process.mark), seconds)
    left = {pid: running().get(pid) for pid in with_environment("TEST_MARK", process.mark)}
    assert not left, left


# --- words ------------------------------------------------------------------------------------------------------------


def test_version():
    ran = run([WALDO, "--version"]).ok()
    assert re.fullmatch(r"waldo \d+\.\d+\.\d+\n", ran.stdout)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["ls", "-h"], ["down", "-h"]])
def test_help_has_examples(words):
    ran = run([WALDO, *words]).ok()
    assert "Examples:" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert not any(hidden in ran.stdout for hidden in ("worker ", "bridge", "broker"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "x.py"], "Did you mean: waldo run"),
        (["dwon"], "Did you mean: waldo down"),
        (["train.py"], "Did you mean: waldo run train.py"),
        (["bananas"], "waldo --help"),
        (["run"], "Try: waldo run train.py"),
        (["run", "--gpu", "2", "x.py"], "Did you mean --gpus?"),
        (["run", "--gpus", "0", "-c", "1"], "--gpus"),
        (["run", "--memory", "4 apples", "-c", "1"], "--memory"),
        (["run", "--gpus", "many", "-c", "1"], "--gpus"),
        (["run", "-m"], "module"),
        (["run", "-c"], "code"),
        (["run", "--"], "command"),
        (["run", "no/such/script.py"], "no such file"),
        (["run", "ls"], "waldo run -- ls"),
        (["run", "-q", "--", "no-such-program"], "no-such-program"),
        (["run", "--on", "lab:22", "-c", "1"], "ssh://lab:22"),
        (["run", "--on", "-oProxyCommand=x", "-c", "1"], "target"),
        (["run", "--on", "tcp:lab:1", "-c", "1"], "not in this version"),
        (["ls", "--on", "a b"], "target"),
        (["run", "--on", "", "-c", "1"], "the target is empty"),
        (["down", "--on", ""], "the target is empty"),
        (["run", ""], "path/to/script.py"),
    ],
)
def test_mistakes_are_one_line_with_what_to_try(words, said):
    """Goal: usage errors are exit code 2 and one line that says what and what to try."""
    line = one_line(run([WALDO, *words]), 2)
    assert said in line


def test_a_mistyped_script_names_its_neighbour(tmp_path):
    (tmp_path / "train.py").write_text("")
    assert "Did you mean train.py?" in one_line(run([WALDO, "run", "trian.py"], cwd=tmp_path), 2)


def test_wrong_gpus_in_the_environment():
    assert "WALDO_GPUS" in one_line(waldo_run("-c", "1", WALDO_GPUS="two"), 2)


# --- run --------------------------------------------------------------------------------------------------------------


def test_everything_after_the_script_is_its_own(script):
    program = script("import sys\nprint(sys.argv[1:])\n")
    words = ["--on", "lab", "-q", "--", "-m", "--gpus"]
    assert waldo_run(program, *words).ok().stdout == f"{words}\n"
    assert waldo_run("-c", "import sys; print(sys.argv[1:])", *words).ok().stdout == f"{words}\n"
    assert waldo_run("--", sys.executable, "-c", "import sys; print(sys.argv[1:])", *words).ok().stdout == f"{words}\n"


def test_stdin_and_stdout_are_the_program_s():
    ran = subprocess.run(
        [WALDO, "run", "-q", "--", "cat"],
        input=b"some bytes\n",
        capture_output=True,
        env=clean_environment(),
        timeout=60,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"some bytes\n", b"")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.abort()", 134),
        ("pass", 0),
    ],
)
def test_the_exit_code_is_the_program_s(code, expected):
    assert waldo_run("-c", code).returncode == expected


def test_quiet_says_nothing():
    ran = waldo_run("-c", "pass", options=["-q"]).ok()
    assert ran.stderr == ""


def test_the_line_counts_devices():
    assert "cuda:0 is this machine's CPU" in waldo_run("-c", "pass").ok().stderr
    assert "cuda:0 and cuda:1 are" in waldo_run("-c", "pass", options=["--gpus", "2"]).ok().stderr
    assert "cuda:0 to cuda:3 are" in waldo_run("-c", "pass", WALDO_GPUS="4").ok().stderr


def test_a_missing_socket_is_unreachable(tmp_path):
    assert "no daemon listens there" in one_line(waldo_run("-c", "1", options=["--on", f"unix:{tmp_path}/none"]), 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program_once(started, number):
    """Goal: a signal for `waldo run`, alone or for its whole group, reaches the program once."""
    code = (
        "import signal, sys, time\nseen = []\n"
        f"signal.signal({int(number)}, lambda *a: seen.append(1))\n"
        "print('ready', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.5)\nsys.exit(40 + len(seen))\n"
    )
    for send in (lambda p: os.kill(p.pid, number), lambda p: os.killpg(p.pid, number)):
        process = started("run", "-c", code)
        assert process.stdout.readline() == "ready\n"
        send(process)
        assert process.wait(20) == 41


def test_a_terminal_s_ctrl_c_reaches_the_program_once():
    """Goal: Ctrl-C typed into a terminal is one SIGINT for the program, and `waldo run` waits for it."""
    code = (
        "import signal, sys, time\nseen = []\n"
        "signal.signal(signal.SIGINT, lambda *a: seen.append(1))\n"
        "print('rea' + 'dy', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.5)\nsys.exit(40 + len(seen))\n"
    )
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execve(WALDO, [str(WALDO), "run", "-c", code], clean_environment())
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 41


@pytest.mark.parametrize("victim", ["run", "program", "worker"])
def test_whoever_is_killed_the_others_end(started, script, victim):
    """Goal: kill -9 of `waldo run`, of the program or of the worker ends the other two within 2 s."""
    body = FOR_EVER if victim != "worker" else TOUCH + "while True: x = x + 1; x.sum().item()\n"
    process = started("run", script(body))
    assert process.stdout.readline().startswith("ready")
    (worker,) = workers("TEST_MARK", process.mark)
    programs = [p for p, (parent, _, _) in running().items() if parent == process.pid and p != worker]
    kill({"run": process.pid, "program": programs[0], "worker": worker}[victim])
    killed = time.monotonic()
    code = process.wait(20)
    assert code == {"run": -9, "program": 137, "worker": 9}[victim]
    nothing_left(process, 2.5 - min(0.5, time.monotonic() - killed))


def test_a_run_makes_no_file(started):
    """Goal: nothing to leave behind: kill -9 of `waldo run` leaves no socket and no folder, and it needs no place for any."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        code = "import torch; print(torch.ones(2).cuda().sum().item(), flush=True); import signal; signal.pause()"
        process = started("run", "-c", code, TMPDIR=folder, HOME="/nonexistent", XDG_STATE_HOME=folder)
        assert process.stdout.readline() == "2.0\n"
        assert list(Path(folder).iterdir()) == []
        kill(process.pid)
        process.wait()
        nothing_left(process)
        assert list(Path(folder).iterdir()) == []


def test_a_program_may_come_from_standard_input():
    """Goal: `waldo run - ARGUMENTS` is `python - ARGUMENTS`."""
    ran = subprocess.run(
        [WALDO, "run", "-", "a", "--on"], input="import sys; print(sys.argv)", capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (0, "['-', 'a', '--on']\n"), ran.stderr


def test_a_link_that_closes_while_an_operator_runs_ends_the_worker(started, script):
    """Goal: the worker does not finish a long operator for a program that is gone."""
    body = (
        "import torch\ny = torch.ones(3000, 3000).cuda()\nprint('ready', y[0, 0].item(), flush=True)\n"
        "for _ in range(200): y = y @ y\nprint('recorded', flush=True)\nimport signal\nsignal.pause()\n"
    )
    process = started("run", script(body))
    assert process.stdout.readline().startswith("ready")
    assert process.stdout.readline() == "recorded\n"
    kill(process.pid)
    process.wait()
    nothing_left(process, 2)


def test_every_process_of_a_program_gets_its_link():
    """Goal: `waldo run -- COMMAND` lends a link to each Python that uses a device, and their results are right."""
    one = f'{sys.executable} -c "import torch; print(torch.full((2,), {{}}.0).cuda().sum().item())"'
    ran = waldo_run("--", "sh", "-c", "; ".join(one.format(i) for i in (1, 2))).ok()
    assert ran.stdout.split() == ["2.0", "4.0"]


def test_a_plain_python_s_broker_leaves_no_process(started, script):
    """Goal: WALDO_ON without `waldo run`: worker and broker are no children of the program, and end with it."""
    mark = uuid.uuid4().hex
    program = script(
        "import os, torch\nprint(torch.ones(2).cuda().tolist())\n"
        "try:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('no child')\n"
    )
    ran = run([sys.executable, program], WALDO_ON="local", TEST_MARK=mark).ok()
    assert ran.stdout == "[1.0, 1.0]\nno child\n"
    assert until(lambda: not with_environment("TEST_MARK", mark), 2)


# --- the daemon -------------------------------------------------------------------------------------------------------


def daemon_socket(state):
    (socket,) = Path(state).rglob("daemon.sock")
    return socket


@pytest.fixture
def daemon(state, started):
    """A daemon at work in `state`, as a bridge would have started it."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    process = subprocess.Popen(
        [WALDO, "daemon", "--ready-fd", str(write)],
        env=clean_environment(XDG_STATE_HOME=state),
        pass_fds=[write],
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert os.read(read, 1) == b"+"
    os.close(read)
    yield process
    run([WALDO, "down", "-q"], XDG_STATE_HOME=state)  # a killed program's session would wait for its grace
    process.terminate()
    process.wait(10)
    process.stderr.close()


def test_ls_without_a_daemon(state):
    ran = run([WALDO, "ls"], XDG_STATE_HOME=state).ok()
    assert (ran.stdout, ran.stderr) == ("", "waldo: no sessions\n")
    assert json.loads(run([WALDO, "ls", "--json"], XDG_STATE_HOME=state).ok().stdout) == {"sessions": []}
    assert "no daemon" in run([WALDO, "down"], XDG_STATE_HOME=state).ok().stderr


def test_only_one_daemon(daemon, state):
    """Goal: a second daemon of the same user ends at once and leaves the first one its socket."""
    assert run([WALDO, "daemon"], XDG_STATE_HOME=state).returncode == 0
    assert run([WALDO, "ls"], XDG_STATE_HOME=state).ok()
    assert daemon.poll() is None


def test_the_daemon_s_folder_is_private(daemon, state):
    folder = daemon_socket(state).parent
    assert folder.stat().st_mode & 0o777 == 0o700


def test_sessions_are_listed_and_ended(daemon, state, started, script):
    """Goal: ls shows a session of a `unix:` target with its program; down ends it, and the program is told."""
    process = started("run", "--on", f"unix:{daemon_socket(state)}", script(TOUCH + "while True: x.sum().item()\n"))
    assert process.stdout.readline().startswith("ready")
    listed = json.loads(run([WALDO, "ls", "--json"], XDG_STATE_HOME=state).ok().stdout)
    (session,) = listed["sessions"]
    assert "program.py" in session["program"]
    assert session["rss_bytes"] > 1 << 20
    assert "program.py" in run([WALDO, "ls"], XDG_STATE_HOME=state).ok().stdout
    assert "1 session" in run([WALDO, "down"], XDG_STATE_HOME=state).ok().stderr
    assert daemon.wait(5) == 0
    assert process.wait(10) == 9
    assert not list(Path(state).rglob("daemon.sock"))
    nothing_left(process)


def test_sigterm_ends_the_daemon_alone(daemon, state, started, script):
    """Goal: a daemon that is started anew loses no session: the next one adopts its workers."""
    process = started("run", "--on", f"unix:{daemon_socket(state)}", script(TOUCH + "while True: x.sum().item()\n"))
    assert process.stdout.readline().startswith("ready")
    daemon.terminate()
    assert daemon.wait(5) == 0
    assert not list(Path(state).rglob("daemon.sock"))
    assert process.poll() is None
    started("daemon", XDG_STATE_HOME=state)

    def sessions():
        return json.loads(run([WALDO, "ls", "--json"], XDG_STATE_HOME=state).ok().stdout)["sessions"]

    assert until(sessions, 10)
    run([WALDO, "down"], XDG_STATE_HOME=state).ok()
    assert process.wait(10) == 9


def test_an_idle_daemon_ends(state):
    """Goal: without sessions and questions for its idle time, the daemon ends by itself."""
    began = time.monotonic()
    assert run([WALDO, "daemon", "--idle", "1"], XDG_STATE_HOME=state).returncode == 0
    assert time.monotonic() - began >= 1
    assert not list(Path(state).rglob("daemon.sock"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 64,
        b"GET / HTTP/1.0\r\n\r\n",
        b"{" * 100000,
        b'{"want": 3}\n',
        b"{}\n",
        b"\n",
        b"WLD\x01" + b"\xff" * 20,
        b"x",
    ],
)
def test_nonsense_on_the_daemon_s_socket_ends_that_connection_only(daemon, state, data):
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(daemon_socket(state)))
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    assert answer == b"" or json.loads(answer)["ok"] is False
    assert run([WALDO, "ls"], XDG_STATE_HOME=state).ok()


@pytest.mark.parametrize("words", (["--help"], ["--version"], ["ls", "--json"], ["run", "--help"]), ids=" ".join)
def test_what_could_not_be_printed_is_said(words, state):
    with open("/dev/full", "w") as full:
        environment = clean_environment(XDG_STATE_HOME=state)
        ran = subprocess.run([WALDO, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert "No space left on device" in one_line(ran, 1)


FULL = """
import torch
x = torch.ones(1000, device="cuda")
for size in (63 << 20, 65 << 20):
    try:
        torch.empty(size, dtype=torch.uint8, device="cuda:1")
        print("fits")
    except torch.OutOfMemoryError as error:
        print(error)
model = torch.nn.Linear(1000, 2000, device="cuda")  # 8 MB, and as much for its gradient
optimizer = torch.optim.Adam(model.parameters())
before = [p.clone() for p in model.parameters()]
try:
    for _ in range(9):
        model(torch.ones(2000, 1000, device="cuda").expand(2000, 1000)).sum().backward()
        kept = [*before, *(p.grad.clone() for p in model.parameters())]
        before = [*before, *kept]
        optimizer.step()
except torch.OutOfMemoryError as error:
    print("later:", "64.00 MiB" in str(error))
print(x.sum().item(), torch.cuda.get_device_properties(0).total_memory >> 20, torch.cuda.mem_get_info()[1] >> 20)
"""


def test_memory_of_a_device_is_what_is_said():
    """Goal: --memory is each device's size: told, kept, and its end is torch.OutOfMemoryError with the sizes, at the line."""
    ran = waldo_run("-c", FULL, options=["--gpus", "2", "--memory", "64MiB"]).ok()
    lines = ran.stdout.splitlines()
    assert lines[0] == "fits"
    assert "GPU 1 has a total capacity of 64.00 MiB" in lines[1]
    assert lines[2] == "later: True"
    assert lines[3] == "1000.0 64 64"


def test_memory_that_is_no_size_is_said():
    ran = waldo_run("-c", "import torch; print(torch.cuda.device_count())", WALDO_MEMORY="much").ok()
    assert 'WALDO_MEMORY is "much"; try a size, such as 4GiB' in ran.stderr
