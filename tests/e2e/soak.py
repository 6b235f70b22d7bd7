"""Many sessions for a long time, with kills and cuts at random: soak.py [--minutes 60] [--sessions 20] [--seed 1]

Two sessions live as long as the soak; the others train a while, end or are killed, and are followed by new ones. Every loss
must be that of an undisturbed run. Memory, descriptors and processes must not grow: of the two long sessions (client and
worker) and of the daemon between a quarter of the time and the end; and nothing is left at the end. Exit code 1 otherwise.
"""

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from host import Host
from processes import kill, until
from support import ROOT, WALDO, run, waldo_run

PROGRAM = ROOT / "tests" / "e2e" / "train.py"
STEPS_MAX = 3000  # of a short session
GROWTH_MAX = 64 << 20  # bytes: allocators keep what they have had


def status_of(pid):
    """(resident bytes, descriptors); zeros when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0


@dataclass
class Session:
    process: object
    output: Path
    long: bool
    killed: bool = False  # by us: the program, its worker, or `waldo run`


@dataclass
class Soak:
    host: Host
    expected: list
    prng: random.Random
    sessions: list = field(default_factory=list)
    started: int = 0
    finished: int = 0
    ended_by_kill: int = 0
    kills: int = 0
    wrong: list = field(default_factory=list)

    def start(self, long):
        self.started += 1
        output = self.host.way / f"output-{self.started}"
        steps = 10**9 if long else self.prng.randrange(20, STEPS_MAX)
        with output.open("w") as file:
            stop = self.host.way / "stop"
            process = self.host.start(PROGRAM, str(steps), stop, options=["--grace", "20s"], stdout=file)
        self.sessions.append(Session(process, output, long))

    def check(self, session, whole):
        """The losses so far; a run that goes on for ever is compared from time to time, as far as we know them."""
        lines = session.output.read_text().splitlines()
        lines = lines if whole else lines[:-1]  # the last may be half written
        if lines[: len(self.expected)] != self.expected[: len(lines)]:
            self.wrong.append(f"losses differ: {session.output}")

    def collect(self):
        for session in [s for s in self.sessions if s.process.poll() is not None]:
            self.sessions.remove(session)
            stderr = session.process.stderr.read()
            session.process.stderr.close()
            code = session.process.returncode
            if session.killed:
                self.ended_by_kill += 1
            elif code == 0:
                self.finished += 1
            else:
                self.wrong.append(f"exit code {code}: {stderr[-300:]}")
            self.check(session, whole=not session.killed)
            session.output.unlink()

    def disturb(self):
        """Something happens to somebody."""
        what = self.prng.choices(["ssh", "bridge", "worker", "program", "run", "daemon"], [40, 40, 6, 6, 6, 1])[0]
        short = [s for s in self.sessions if not s.long and not s.killed]
        parts = self.host.parts()
        pids = []
        if what in ("ssh", "bridge", "daemon"):
            pids = [pid for pid, part in parts.items() if part == what]
        elif short:
            session = self.prng.choice(short)
            children = [pid for pid in parts if parent_of(pid) == session.process.pid and parts[pid] == "program"]
            if what == "worker":
                pids = [s["pid"] for s in self.host.sessions() if s["client_pid"] in children]
            else:
                pids = children if what == "program" else [session.process.pid]
            session.killed = bool(pids)
        if pids:
            self.kills += 1
            with contextlib.suppress(ProcessLookupError):
                kill(self.prng.choice(pids))


def parent_of(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def measure(soak):
    """What must not grow: name -> (bytes, descriptors)."""
    parts, found = soak.host.parts(), {}
    workers = {s["client_pid"]: s["pid"] for s in soak.host.sessions()}
    for n, session in enumerate(s for s in soak.sessions if s.long):
        for pid, part in parts.items():
            if part == "program" and parent_of(pid) == session.process.pid:
                found[f"client {n}"] = status_of(pid)
                found[f"worker {n}"] = status_of(workers.get(pid, 0))
        found[f"waldo run {n}"] = status_of(session.process.pid)
    found["daemon"] = next((status_of(pid) for pid, part in parts.items() if part == "daemon"), (0, 0))
    return found


def soak_for(soak, minutes, count, every=60.0):
    began, next_row, early = time.monotonic(), 0.0, None
    print("minutes  sessions  started  finished  killed  kills  links  processes  MiB of workers  wrong", flush=True)
    while (now := time.monotonic() - began) < minutes * 60:
        soak.collect()
        while len(soak.sessions) < count:
            soak.start(long=sum(s.long for s in soak.sessions) < 2)
        soak.disturb()
        if early is None and now > minutes * 15:
            early = measure(soak)
        if now >= next_row:
            next_row += every
            parts = soak.host.parts()
            resident = sum(status_of(pid)[0] for pid, part in parts.items() if part == "worker") >> 20
            print(
                f"{now / 60:7.1f}  {len(soak.sessions):8}  {soak.started:7}  {soak.finished:8}  {soak.ended_by_kill:6}  "
                f"{soak.kills:5}  {len(soak.host.links()):5}  {len(parts):9}  {resident:14}  {len(soak.wrong):5}",
                flush=True,
            )
            for session in soak.sessions:
                if session.long:
                    soak.check(session, whole=False)
        time.sleep(soak.prng.uniform(0, 2.0))
    return early


def end(soak):
    """All go on to their next step, and end; the daemon is told to. Nothing may be left."""
    (soak.host.way / "stop").touch()
    until(lambda: soak.collect() or not soak.sessions, 300)
    soak.wrong += [f"does not end: {s.output}" for s in soak.sessions]
    until(lambda: not soak.host.sessions(), 30)
    soak.wrong += [f"session left: {s}" for s in soak.host.sessions()]
    run([WALDO, "down", "-q"], XDG_STATE_HOME=soak.host.state)
    until(lambda: not soak.host.parts(), 10)
    soak.wrong += [f"process left: {pid} {part}" for pid, part in soak.host.parts().items()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    prng = random.Random(options.seed)
    expected = waldo_run(PROGRAM, str(STEPS_MAX)).ok().stdout.splitlines()
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        soak = Soak(Host(Path(folder)), expected, prng)
        soak.host.set("cuts", *(int(2 ** prng.uniform(12, 26)) for _ in range(100_000)))
        try:
            early = soak_for(soak, options.minutes, options.sessions)
            late = measure(soak)
            end(soak)
        finally:
            soak.host.close()
    print("what must not grow: MiB and descriptors, at a quarter of the time and at the end")
    for name, (resident, descriptors) in sorted(late.items()):
        resident_before, descriptors_before = (early or late).get(name, (0, 0))
        print(f"  {name:12} {resident_before >> 20:6} {resident >> 20:6}   {descriptors_before:4} {descriptors:4}")
        if resident > resident_before + GROWTH_MAX:
            soak.wrong.append(f"{name} has grown")
        if descriptors > descriptors_before + 4:  # a new link may be on its way
            soak.wrong.append(f"{name} has more descriptors")
    print("\n".join(soak.wrong) or "nothing wrong")
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
