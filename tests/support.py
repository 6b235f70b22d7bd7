"""What every Python test here shares: running programs under the installed `waldo`, and plain, and comparing them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WALDO = BIN / "waldo"


def clean_environment(**more):
    """The caller's environment without anything that switches Waldo on, and with `more`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WALDO_")}
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    environment.update({k: str(v) for k, v in more.items()})
    return environment


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str

    def ok(self):
        assert self.returncode == 0, f"exit code {self.returncode}\n{self.stdout[-4000:]}\n{self.stderr[-8000:]}"
        return self


def run(command, *, timeout=300, cwd=None, **environment):
    """Runs to the end and returns what came out; a hang is a failure that shows the output so far."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        env=clean_environment(**environment),
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        stdout, stderr = process.communicate()
        pytest.fail(f"no end after {timeout} s: {command}\n{stdout[-4000:]}\n{stderr[-8000:]}")
    return Ran(process.returncode, stdout, stderr)


def waldo_run(*arguments, options=(), **keywords):
    """`waldo run OPTIONS ARGUMENTS`."""
    return run([WALDO, "run", *options, *arguments], **keywords)


def plain_python(*arguments, **keywords):
    return run([sys.executable, *arguments], **keywords)


def with_stats(tmp_path, *arguments, options=(), **keywords):
    """Runs under `waldo run --stats=FILE` and returns (what ran, the statistics)."""
    file = tmp_path / "stats.json"
    file.unlink(missing_ok=True)
    ran = waldo_run(*arguments, options=[f"--stats={file}", *options], **keywords).ok()
    return ran, json.loads(file.read_text())
