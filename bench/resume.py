#!/usr/bin/env python3
"""What a cut costs at 50 ms of round trip: resume.py [CUTS]

A training reads its loss in each step. Its link is cut (kill -9 of what stands in for ssh, tools/bad_ssh.py, which delays every
byte by 25 ms). Counted: from the moment the next ssh has reached the host (where a real one has just logged in) to the next
loss, less what a step takes without a cut. In it are the start of the bridge there and 3.5 round trips: BANNER, ping and
pong, HELLO and WELCOME, what was lost and its answer.
"""

import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
WALDO = Path(sys.executable).parent / "waldo"
CUTS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
ROUND_TRIP = 0.050


def measure(folder):
    way, state = folder / "way", folder / "s"
    way.mkdir()
    state.mkdir()
    (way / "delay").write_text(f"{ROUND_TRIP / 2}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WALDO_")}
    environment |= {"WALDO_SSH": str(ROOT / "tools" / "bad_ssh.py"), "WALDO_REMOTE": str(WALDO)}
    environment |= {"BAD_SSH": str(way), "BAD_SSH_STATE": str(state)}
    program = [ROOT / "tests" / "e2e" / "train.py", "1000000", way / "stop"]
    process = subprocess.Popen([WALDO, "run", "--on", "lab", "-q", *program], stdout=subprocess.PIPE, env=environment)

    def steps(count):
        """When each of the next losses came."""
        times = []
        for _ in range(count):
            process.stdout.readline()
            times.append(time.time())
        return times

    def links():
        return [int(pid) for pid in (way / "links").read_text().split()]

    steps(20)
    since_contact, in_all = [], []
    for _ in range(CUTS):
        quiet = steps(8)
        usual = statistics.median(b - a for a, b in itertools.pairwise(quiet))
        before = links()
        os.kill(before[-1], signal.SIGKILL)
        cut = time.time()
        while len(links()) == len(before):
            time.sleep(0.001)
        contact = (way / "links").stat().st_mtime
        came = next(t for t in iter(lambda: steps(1)[0], None) if t > contact)
        since_contact.append(came - contact - usual)
        in_all.append(came - cut - usual)
    (way / "stop").touch()
    process.communicate(timeout=60)
    environment["XDG_STATE_HOME"] = str(state)
    subprocess.run([WALDO, "down", "-q"], env=environment, check=False)
    return since_contact, in_all


def main():
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        since_contact, in_all = measure(Path(folder))
    for what, times in (("after the host was reached", since_contact), ("in all", in_all)):
        median, most = statistics.median(times), max(times)
        print(f"time lost per cut, {what}: {median * 1e3:.0f} ms, at most {most * 1e3:.0f} ms", end="")
        print(f" = {median / ROUND_TRIP:.1f} round trips of {ROUND_TRIP * 1e3:.0f} ms (median of {len(times)} cuts)")


if __name__ == "__main__":
    main()
