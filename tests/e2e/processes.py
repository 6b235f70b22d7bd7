"""Looking at processes from outside, with nothing but /proc."""

import os
import signal
import time
from pathlib import Path


def running():
    """pid -> (parent's pid, session, command line) of every process that is not a zombie."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state != "Z":
            found[int(folder.name)] = (int(parent), int(session), command)
    return found


def with_environment(name, value):
    """Pids of the running processes that have NAME=value in their environment: all that a test's program started."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in running():
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def workers(name, value):
    """Those of with_environment() that are Waldo's workers."""
    everything = running()
    return [pid for pid in with_environment(name, value) if " worker" in everything.get(pid, (0, 0, ""))[2]]


def until(condition, seconds):
    """Asks again and again; returns the first true answer, or the last one when time is over."""
    end = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


def kill(pid):
    os.kill(pid, signal.SIGKILL)
