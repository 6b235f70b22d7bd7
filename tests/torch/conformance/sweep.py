"""Runs variants in processes of their own; a crash or a hang is one variant's, and the sweep goes on."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path


class Child:
    """A process that tries one variant after another."""

    def __init__(self, log):
        read, write = os.pipe()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WALDO_")}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(Path(__file__).parent.parent), environment.get("PYTHONPATH")])
        )
        # One thread here and there: bits of some CPU kernels depend on their number, and variants run side by side.
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = "1"
        environment["PYTHONFAULTHANDLER"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "conformance.child", str(write)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[write],
            env=environment,
            start_new_session=True,
            text=True,
        )
        os.close(write)
        self.answers = os.fdopen(read, "rb", buffering=0)
        self.pending = b""
        self.job, self.since, self.used, self.used_first = None, 0.0, 0.0, 0.0

    def start(self, job):
        self.job, self.since = job, time.monotonic()
        self.used = self.used_first = self._cpu_seconds()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # answer() sees the end

    def answer(self):
        """A decoded line, None while there is none, "" at the end of the process. Call when readable."""
        data = os.read(self.answers.fileno(), 1 << 16)
        if not data:
            return ""
        self.pending += data
        if b"\n" not in self.pending:
            return None
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line)

    def hangs(self, seconds):
        """Has it done nothing for so long, or computed for so long? A process that waits for a busy machine does not."""
        used = self._cpu_seconds()
        if used > self.used:
            self.used, self.since = used, time.monotonic()
        return time.monotonic() - self.since > seconds or used - self.used_first > seconds

    def _cpu_seconds(self):
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.stdin.close()
        self.answers.close()
        return self.process.wait()


def ask(log, job, seconds=600):
    child = Child(log)
    child.start(job)
    try:
        while True:
            if not select.select([child.answers], [], [], seconds)[0]:
                raise RuntimeError("a process of the sweep does not answer")
            answer = child.answer()
            if answer == "":
                raise RuntimeError("a process of the sweep ended")
            if answer is not None:
                return answer
    finally:
        child.end()


def lost(job, kind, text):
    entry = {key: job[key] for key in ("suite", "name", "dtype")}
    finding = {"phase": "", "sample": -1, "kind": kind, "text": text}
    return entry | {"samples": 0, "checks": 0, "both_raise": 0, "findings": [finding], "conforms": 0, "seconds": 0}


def run(jobs, processes, log, on_answer, variant_seconds=300):
    """Calls on_answer(answer) for every job, in the order they end."""
    waiting = deque(jobs)
    children = []
    try:
        while waiting or any(child.job for child in children):
            while waiting and len(children) < processes:
                children.append(Child(log))
            for child in children:
                if child.job is None and waiting:
                    child.start(waiting.popleft())
            ready = select.select([c.answers for c in children], [], [], 1.0)[0]
            for child in list(children):
                if child.answers in ready:
                    answer = child.answer()
                    if answer is None:
                        continue
                    job, child.job = child.job, None
                    if answer == "":
                        code = child.end()
                        children.remove(child)
                        if job:
                            on_answer(lost(job, "crash", f"the process ended with {code}"))
                    else:
                        on_answer(answer)
                        if answer.get("lost"):
                            child.end()
                            children.remove(child)
                elif child.job and child.hangs(variant_seconds):
                    on_answer(lost(child.job, "hang", f"no end after {variant_seconds} s"))
                    child.job = None
                    child.end()
                    children.remove(child)
    finally:
        for child in children:
            child.end()
