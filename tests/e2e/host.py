"""Another host, as far as the client can tell: tools/bad_ssh.py stands in for ssh, and treats links as it is told."""

import json
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from processes import kill, running, with_environment
from support import ROOT, WALDO, clean_environment, run, waldo_run


class Host:
    """Another host, as far as the client can tell, and the way there. `inside`: words that put a command into it."""

    def __init__(self, folder, inside=()):
        self.way, self.state, self.temporary = folder / "way", folder / "s", folder / "t"
        for made in (self.way, self.state, self.temporary):
            made.mkdir()
        self.inside = [str(word) for word in inside]
        if self.inside:
            (self.way / "inside").write_text(" ".join(self.inside))
        self.mark = uuid.uuid4().hex
        self.environment = {
            "WALDO_SSH": ROOT / "tools" / "bad_ssh.py",
            "WALDO_REMOTE": WALDO,
            "BAD_SSH": self.way,
            "BAD_SSH_STATE": self.state,
            "TEST_MARK": self.mark,
            "TMPDIR": self.temporary,
        }

    def set(self, name, *numbers):
        (self.way / name).write_text("".join(f"{n}\n" for n in numbers))

    def links(self):
        file = self.way / "links"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    def run(self, *words, options=(), **more):
        return waldo_run(*words, options=["--on", "lab", "-q", *options], timeout=300, **self.environment, **more)

    def start(self, *words, options=(), stdout=subprocess.PIPE, **more):
        return subprocess.Popen(
            [WALDO, "run", "--on", "lab", "-q", *options, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**self.environment, **more),
            start_new_session=True,
        )

    def parts(self):
        """pid -> "ssh", "program" or a part of waldo ("bridge", "daemon", "worker", …) of all that the test started."""
        found, everything = {}, running()
        for pid in with_environment("TEST_MARK", self.mark):
            words = everything.get(pid, (0, 0, ""))[2].split()
            names = [Path(word).name for word in words[:2]] + [""] * 2
            if names[0] == "waldo":
                found[pid] = names[1]
            elif "bad_ssh.py" in names[:2]:
                found[pid] = "ssh"
            elif names[0].startswith("python") and names[1].endswith(".py"):
                found[pid] = "program"
            else:
                found[pid] = " ".join(words)
        return found

    def pids(self, part):
        return [pid for pid, found in self.parts().items() if found == part]

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
