"""A link that breaks changes nothing but time: losses are bit for bit those of an undisturbed run.

Method: tools/bad_ssh.py stands in for ssh. It runs the bridge on this machine and cuts, silences or refuses links.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from processes import kill, running, until, with_environment
from support import ROOT, WALDO, clean_environment, run, waldo_run


class Host:
    """Another host, as far as the client can tell, and the way there."""

    def __init__(self, folder):
        self.way, self.state = folder / "way", folder / "s"
        self.way.mkdir()
        self.state.mkdir()
        self.mark = uuid.uuid4().hex
        self.environment = {
            "WALDO_SSH": ROOT / "tools" / "bad_ssh.py",
            "WALDO_REMOTE": WALDO,
            "BAD_SSH": self.way,
            "BAD_SSH_STATE": self.state,
            "TEST_MARK": self.mark,
        }

    def set(self, name, *numbers):
        (self.way / name).write_text("".join(f"{n}\n" for n in numbers))

    def links(self):
        file = self.way / "links"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    def run(self, *words, options=(), **more):
        return waldo_run(*words, options=["--on", "lab", "-q", *options], timeout=300, **self.environment, **more)

    def start(self, *words, options=(), stdout=subprocess.PIPE):
        return subprocess.Popen(
            [WALDO, "run", "--on", "lab", "-q", *options, *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**self.environment),
            start_new_session=True,
        )

    def pids(self, word):
        everything = running()
        return [p for p in with_environment("TEST_MARK", self.mark) if word in everything.get(p, (0, 0, ""))[2]]

    def sessions(self):
        return json.loads(run([WALDO, "ls", "--json"], XDG_STATE_HOME=self.state).ok().stdout)["sessions"]

    def close(self):
        for pid in with_environment("TEST_MARK", self.mark):
            kill(pid)


@pytest.fixture
def host():
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        host = Host(Path(folder))
        yield host
        host.close()


def finish(process, timeout=200):
    stdout, stderr = process.communicate(timeout=timeout)
    process.stderr.close()
    assert process.returncode == 0, stderr[-4000:]
    return stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_many_cuts_change_no_loss(host, program, uncut, seed):
    """Goal: 30 links that end after any number of bytes, in the greeting, in frames, between them."""
    prng = random.Random(seed)
    host.set("cuts", *(int(2 ** prng.uniform(6, 17)) for _ in range(30)), *[10**12] * 1000)
    ran = host.run(program, "40").ok()
    assert ran.stdout == uncut(40)
    assert len(host.links()) > 20


def test_cuts_far_away(host, program, uncut):
    """Goal: the same at 50 ms of round trip."""
    host.set("delay", 0.025)
    host.set("cuts", 20_000, 40_000, 3_000, 60_000, 10_000, *[10**12] * 100)
    assert host.run(program, "20").ok().stdout == uncut(20)


def test_a_link_that_falls_silent_is_replaced(host, program, uncut):
    """Goal: a hung ssh is found within 5 s, replaced, and killed."""
    host.set("silent", 150_000, *[10**12] * 100)
    process = host.start(program, "30")
    lines, gap, last = [], 0, None
    for line in process.stdout:
        now = time.monotonic()
        gap = max(gap, now - (last or now))
        lines.append(line)
        last = now
    finish(process)
    assert "".join(lines) == uncut(30)
    assert len(host.links()) == 2
    assert gap < 15  # 5 s, and the way back on a busy machine
    assert host.links()[0] not in running(), "the hung one is still there"


def test_an_outage_is_waited_for_and_said(host, program, uncut):
    """Goal: nobody there for 4 s: after 2 s one line on stderr, one when it is over; the run goes on."""
    process = host.start(program, "30", options=[])
    assert process.stdout.readline() == "ready\n"
    for _ in range(5):
        process.stdout.readline()
    host.set("refuse")
    for pid in host.pids(" bridge"):
        kill(pid)
    time.sleep(4)
    (host.way / "refuse").unlink()
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert uncut(30).endswith(stdout)
    lines = stderr.splitlines()
    assert lines[0].startswith("waldo: lab: no contact for "), stderr
    assert lines[0].endswith(", retrying")
    assert lines[1].startswith("waldo: lab: contact again after "), stderr
    assert len(lines) == 2


def test_ctrl_c_while_there_is_no_link(host, program):
    """Goal: Ctrl-C during an outage ends the program at once, as always."""
    process = host.start(program, "100000")
    assert process.stdout.readline() == "ready\n"
    host.set("refuse")
    for pid in host.pids(" bridge"):
        kill(pid)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    pressed = time.monotonic()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    assert "KeyboardInterrupt" in stderr
    assert time.monotonic() - pressed < 8


def test_after_the_grace_the_session_is_lost(host, program):
    """Goal: nobody comes back within --grace: the worker ends, and the program gets device-lost with what to do."""
    process = host.start(program, "100000", options=["--grace", "2s"])
    assert process.stdout.readline() == "ready\n"
    host.set("refuse")
    for pid in host.pids(" bridge"):
        kill(pid)
    assert until(lambda: not host.sessions(), 5), "the worker is still there"
    (host.way / "refuse").unlink()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 9, stderr
    assert "DeviceLostError" in stderr
    assert "checkpoint" in stderr
    assert "--grace" in stderr


# --- kill -9 ----------------------------------------------------------------------------------------------------------

MOMENTS = int(os.environ.get("WALDO_KILL_MOMENTS", "2"))  # 10 for the whole matrix
COMMANDS = {"ssh": "bad_ssh", "bridge": " bridge", "daemon": "waldo daemon"}


def some_time(prng, at_most=0.5):
    """Any moment of the program's work."""
    time.sleep(prng.uniform(0, at_most))


def assert_nothing_is_left(host, seconds):
    """All but the daemon and its spare worker have ended."""

    def left():
        carriers = {word: host.pids(word) for word in ("bad_ssh", " bridge", "train.py")}
        return {**{word: pids for word, pids in carriers.items() if pids}, **{s["pid"]: s for s in host.sessions()}}

    until(lambda: not left(), seconds)
    assert not left()


@pytest.mark.parametrize("victim", ["ssh", "bridge", "daemon", "daemon and bridge"])
def test_whoever_carries_it_is_killed_it_goes_on(host, program, uncut, victim):
    """Goal: kill -9 of what only carries the session changes no loss; the daemon's successor finds the workers."""
    prng = random.Random(victim)
    stop = host.way / "stop"
    output = host.way / "output"
    with output.open("w") as file:
        process = host.start(program, "100000", stop, stdout=file)
        assert until(output.read_text, 60)
        for _ in range(MOMENTS):
            some_time(prng)
            killed = [pid for word in victim.split(" and ") for pid in host.pids(COMMANDS[word])]
            for pid in killed:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
            steps = len(output.read_text().splitlines())
            assert until(lambda n=steps: len(output.read_text().splitlines()) > n + 3, 15), process.poll()
        stop.touch()
        finish(process)
    printed = output.read_text()
    assert printed == uncut(len(printed.splitlines()) - 2)
    assert_nothing_is_left(host, 3)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_worker_is_said_at_once(host, program, moment):
    """Goal: a session whose worker is dead is not waited for: exit code 9 within 2 s."""
    process = host.start(program, "100000")
    assert process.stdout.readline() == "ready\n"
    some_time(random.Random(moment))
    (session,) = host.sessions()
    kill(session["pid"])
    killed = time.monotonic()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 9, stderr
    assert time.monotonic() - killed < 4  # the exception within 2 s, then the end of the interpreter
    assert_nothing_is_left(host, 3)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_program_s_session_ends(host, program, moment):
    """Goal: `waldo run` outlives its program and tells the other side: 2 s, not the grace."""
    process = host.start(program, "100000")
    assert process.stdout.readline() == "ready\n"
    some_time(random.Random(moment))
    (child,) = [p for p, (parent, _, _) in running().items() if parent == process.pid and p in host.pids("train.py")]
    kill(child)
    assert until(lambda: not host.sessions(), 3)
    assert process.wait(10) == 137
    assert_nothing_is_left(host, 3)
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_waldo_run_leaves_nothing_after_the_grace(host, program, moment):
    """Goal: kill -9 of `waldo run` kills its program; the session ends after --grace, because nobody can tell the host."""
    process = host.start(program, "100000", options=["--grace", "1s"])
    assert process.stdout.readline() == "ready\n"
    some_time(random.Random(moment))
    kill(process.pid)
    process.wait(10)
    assert_nothing_is_left(host, 5)
    process.stdout.close()
    process.stderr.close()


def test_a_plain_python_comes_back_too(host, program, uncut):
    """Goal: WALDO_ON=lab python train.py: its broker stays for as long as it does."""
    host.set("cuts", 100_000, 50_000, *[10**12] * 100)
    ran = run([sys.executable, program, "20"], timeout=120, WALDO_ON="lab", **host.environment).ok()
    assert ran.stdout == uncut(20)
    assert len(host.links()) >= 3
    assert until(lambda: not host.pids(" broker"), 3)
    assert until(lambda: not host.sessions(), 3)
