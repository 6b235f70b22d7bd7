#!/usr/bin/env python3
"""A stand-in for ssh (WALDO_SSH) that runs the command here and treats its bytes badly. For tests.

BAD_SSH, a folder, says how; it can change while links are up:

  cuts      one number per line: link n ends after so many bytes (both ways together) have gone through. None: never
  silent    as `cuts`, but the link then only stops carrying bytes, and stays
  refuse    while this file is there no link can be made (exit code 255)
  delay     seconds that every byte takes
  inside    words before the command, such as those that enter another network namespace
  links     written here: one line per link that was made, with our pid

BAD_SSH_STATE is the XDG_STATE_HOME of "the other host".
"""

import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

CHUNK = 64 << 10


def number(folder, name, index):
    try:
        lines = (folder / name).read_text().split()
        return float(lines[index]) if index < len(lines) else None
    except OSError:
        return None


class Link:
    def __init__(self, folder, child):
        self.child = child
        with (folder / "links").open("a") as log:
            log.write(f"{os.getpid()}\n")
        index = len((folder / "links").read_text().split()) - 1
        self.cut, self.silent = number(folder, "cuts", index), number(folder, "silent", index)
        self.delay = number(folder, "delay", 0) or 0.0
        self.passed = 0
        self.lock = threading.Lock()

    def allowed(self, size):
        """How many of `size` bytes may pass; ends or silences the link."""
        with self.lock:
            for limit in (self.cut, self.silent):
                if limit is not None and self.passed + size > limit:
                    size = max(0, int(limit - self.passed))
            self.passed += size
            return size

    def over(self):
        return any(limit is not None and self.passed >= limit for limit in (self.cut, self.silent))

    def carry(self, source, target):
        """Pass bytes on until an end; each `delay` later."""
        waiting, changed = deque(), threading.Condition()

        def write():
            while True:
                with changed:
                    changed.wait_for(lambda: waiting)
                    due, data = waiting.popleft()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    os._exit(0)
                while data:
                    try:
                        data = data[os.write(target, data) :]
                    except OSError:
                        os._exit(0)
                if self.over():
                    self.end()

        threading.Thread(target=write, daemon=True).start()
        while True:
            try:
                data = os.read(source, CHUNK)
            except OSError:  # it was closed with something unread in it
                data = b""
            data = data[: self.allowed(len(data))]
            if not data and self.over():
                self.end()
            with changed:
                waiting.append((time.monotonic() + self.delay, data))
                changed.notify()
            if not data:
                return

    def end(self):
        if self.cut is not None and self.passed >= self.cut:
            self.child.kill()
            os._exit(255)
        while True:  # silent: deaf and dumb, until somebody kills us
            time.sleep(3600)


def main():
    words = sys.argv[1:]
    while words and words[0].startswith("-"):
        words.pop(0)
    folder = Path(os.environ["BAD_SSH"])
    if (folder / "refuse").exists():
        sys.stderr.write("ssh: connect to host: Connection refused\n")
        return 255
    environment = {**os.environ, "XDG_STATE_HOME": os.environ["BAD_SSH_STATE"]}
    # As with a real ssh the two ends of the connection are not of one family.
    inside = (folder / "inside").read_text().split() if (folder / "inside").exists() else []
    child = subprocess.Popen(
        inside + words[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
    )
    link = Link(folder, child)
    threading.Thread(target=link.carry, args=(0, child.stdin.fileno()), daemon=True).start()
    threading.Thread(target=link.carry, args=(child.stdout.fileno(), 1), daemon=True).start()
    with selectors.DefaultSelector():
        code = child.wait()
    if link.silent is not None and link.over():
        link.end()
    time.sleep(link.delay + 0.05)  # what is under way
    return code


if __name__ == "__main__":
    sys.exit(main())
