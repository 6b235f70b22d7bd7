"""kill -9 of anybody at any moment: the others end or go on as docs/errors.md says, and nothing is left behind.

The matrix is who × when. `make test` runs a part of it; WALDO_KILLS=all (make kills) runs it whole and prints what each took.
"""

import os
import random
import time
from pathlib import Path

import pytest
from processes import kill, until
from support import ROOT, WALDO, run, waldo_run

PROGRAM = ROOT / "tests" / "e2e" / "phases.py"
ALL = os.environ.get("WALDO_KILLS") == "all"
GRACE = 1  # seconds; `waldo run --grace` where nobody comes back
PROMISED = 2  # seconds, docs/errors.md
BUSY = 6  # what a busy machine may add: the processes that end or start anew are Python's and PyTorch's

CARRIERS = ["ssh", "bridge", "daemon", "daemon and bridge"]
ENDS = ["worker", "program", "run"]
START = ["starting", "connecting"]  # the victim has just been started; the host has just made the session
EARLY = [*START, "first_use"]  # the program's own start is in what comes next
PHASES = ["first_use", "train", "train_later", "upload", "compute", "download", "idle", "end"]
MOMENTS = START + PHASES

SOME = [
    ("ssh", "upload"),
    ("bridge", "train_later"),
    ("daemon and bridge", "download"),
    ("worker", "compute"),
    ("program", "idle"),
    ("run", "train"),
]


@pytest.fixture(scope="module")
def undisturbed():
    return waldo_run(PROGRAM).ok().stdout


@pytest.fixture(scope="module")
def table():
    """Who was killed when, what became of it, after how many seconds."""
    rows = []
    yield rows
    for row in rows:
        print("\n{:18} {:12} {:10} {:5.2f} s".format(*row), end="")
    print(f"\n{len(rows)} kills" if rows else "")


class Life:
    """One run of the program, up to a moment."""

    def __init__(self, host, grace):
        self.host = host
        self.output = host.way / "output"
        with self.output.open("w") as file:
            self.process = host.start(PROGRAM, options=["--grace", f"{grace}s"], stdout=file)

    def victims(self, who):
        if who == "run":
            return [self.process.pid]
        if who == "worker" and (sessions := self.host.sessions()):
            return [sessions[0]["pid"]]
        return [pid for part in who.split(" and ") for pid in self.host.pids(part)]

    def phase(self):
        return ([""] + [line.split()[1] for line in self.output.read_text().splitlines() if line.startswith("phase ")])[
            -1
        ]

    def wait_for(self, who, moment, prng):
        if moment == "starting":
            reached = until(lambda: self.victims(who.split(" and ")[0]), 60)
        elif moment == "connecting":
            reached = until(self.host.sessions, 60)
        else:
            wanted = moment.removesuffix("_later")
            reached = until(lambda: wanted in self.output.read_text().split(), 60)
            time.sleep(prng.uniform(0.0, 0.02))
            if moment.endswith("_later"):
                time.sleep(0.1)
        assert reached, f"{self.phase()} {self.process.poll()}"

    def goes_on(self, since):
        """The program has said something since, or its code if it ended."""
        return len(self.output.read_text()) > since or self.process.poll() is not None

    def left(self):
        """What is left of it: everything but the daemon, with a spare worker perhaps, and the daemon's three files."""
        host = self.host
        parts = host.parts()
        busy = {session["pid"] for session in host.sessions()} if self.daemon_s_socket() else set()
        spare = [pid for pid, part in parts.items() if part == "worker" and pid not in busy][:1]
        found = {pid: part for pid, part in parts.items() if pid not in spare and part != "daemon"}
        files = [path for path in host.state.rglob("*") if not path.is_dir()]
        found["files"] = [path for path in files if path.name not in ("daemon.sock", "daemon.lock", "daemon.log")]
        found["files"] += host.temporary.rglob("*waldo*")
        found["sockets"] = [name for name in [self.broker] if name and name in Path("/proc/net/unix").read_text()]
        return {what: value for what, value in found.items() if value or isinstance(what, int)}

    def daemon_s_socket(self):
        return list(self.host.state.rglob("daemon.sock"))

    def note_broker(self):
        """The name of `waldo run`'s socket, from the program's environment."""
        self.broker = ""
        for pid in self.host.pids("program"):
            for item in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                if item.startswith("WALDO_BROKER="):
                    self.broker = item.partition("=")[2]


def expected(who, moment):
    """Exit codes of `waldo run`, the first the usual one."""
    if who == "run":
        return [-9]
    if who == "program":
        return [137]
    if who == "worker" and moment in EARLY:  # it may be a spare one, and the next takes its place
        return [0, 9, 1]
    if who == "worker":  # after the last value nobody needs it
        return [0, 9] if moment == "end" else [9]
    return [0, 3] if moment == "starting" else [0]  # 3: no link was ever made


MATRIX = [(who, when) for who in CARRIERS + ENDS for when in MOMENTS] if ALL else SOME


@pytest.mark.parametrize(("who", "moment"), MATRIX)
def test_killed(host, undisturbed, table, who, moment):
    life = Life(host, GRACE if who == "run" else 60)
    life.wait_for(who, moment, random.Random(f"{who} {moment}"))
    life.note_broker()
    victims, said = life.victims(who), len(life.output.read_text())
    killed = time.monotonic()
    for pid in victims:
        try:
            kill(pid)
        except ProcessLookupError:  # it was about to end by itself
            continue
    limit = 60 if moment in EARLY and who in [*CARRIERS, "worker"] else PROMISED + BUSY
    if who in CARRIERS:
        until(lambda: life.goes_on(said), limit)
    else:
        until(lambda: life.process.poll() is not None, limit)
    took = time.monotonic() - killed
    code = life.process.wait(120)
    stderr = life.process.stderr.read()
    life.process.stderr.close()
    assert code in expected(who, moment), stderr
    assert took < limit
    if code == 0:
        assert life.output.read_text() == undisturbed
    if code == 9:
        assert "DeviceLostError" in stderr
    limit = PROMISED + BUSY + (GRACE if who == "run" else 0)
    until(lambda: not life.left(), max(limit - took, PROMISED) if who in ENDS else limit)
    assert not life.left()
    if who in ENDS:
        took = time.monotonic() - killed
    run([WALDO, "down", "-q"], XDG_STATE_HOME=host.state)
    assert until(lambda: not host.parts(), 5), host.parts()
    table.append((who, moment, {0: "went on", -9: "ended", 137: "ended", 9: "lost"}.get(code, f"exit {code}"), took))
