"""A link that breaks changes nothing but time: losses are bit for bit those of an undisturbed run.

Method: tools/bad_ssh.py stands in for ssh. It runs the bridge on this machine and cuts, silences or refuses links.
"""

import os
import random
import signal
import sys
import time

from processes import kill, running, until
from support import run


def finish(process, timeout=200):
    stdout, stderr = process.communicate(timeout=timeout)
    process.stderr.close()
    assert process.returncode == 0, stderr[-4000:]
    return stdout


def test_many_cuts_change_no_loss(host, program, uncut):
    """Goal: 30 links that end after any number of bytes, in the greeting, in frames, between them."""
    prng = random.Random(1)
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
    for pid in host.pids("bridge"):
        kill(pid)
    time.sleep(4)
    (host.way / "refuse").unlink()
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert stdout and uncut(30).endswith(stdout)
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
    for pid in host.pids("bridge"):
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
    for pid in host.pids("bridge"):
        kill(pid)
    assert until(lambda: not host.sessions(), 15), "the worker is still there"
    (host.way / "refuse").unlink()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 9, stderr
    assert "DeviceLostError" in stderr
    assert "checkpoint" in stderr
    assert "--grace" in stderr


def test_a_plain_python_comes_back_too(host, program, uncut):
    """Goal: WALDO_ON=lab python train.py: its broker stays for as long as it does."""
    host.set("cuts", 100_000, 50_000, *[10**12] * 100)
    ran = run([sys.executable, program, "20"], timeout=120, WALDO_ON="lab", **host.environment).ok()
    assert ran.stdout == uncut(20)
    assert len(host.links()) >= 3
    assert until(lambda: not host.pids("broker"), 3)
    assert until(lambda: not host.sessions(), 3)
