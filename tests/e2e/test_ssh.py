"""Over ssh: a real sshd on loopback, with keys made for the test. Each failure has its own message and exit code."""

import contextlib
import getpass
import json
import os
import pty
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from processes import kill, running, until, with_environment
from support import WALDO, clean_environment, run, waldo_run

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(
    not (Path(SSHD).exists() and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="no OpenSSH here"
)

TOUCH = "import torch\nx = torch.ones(2).cuda()\nprint('ready', x.tolist(), flush=True)\n"


def make_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return Path(path)


def make_program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


class Server:
    """sshd on a free port of 127.0.0.1, and an ssh that knows it as `lab`."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "s"
        self.state.mkdir()
        self.mark = uuid.uuid4().hex
        self.user_key = make_key(folder / "user")
        self.host_key = make_key(folder / "host")
        (folder / "authorized").write_text(self.user_key.with_suffix(".pub").read_text())
        for _ in range(5):  # somebody else may take the port between our choice and sshd's bind
            with socket.socket() as chosen:
                chosen.bind(("127.0.0.1", 0))
                self.port = chosen.getsockname()[1]
            if self._start():
                break
        else:
            pytest.fail("sshd does not start:\n" + (folder / "sshd.log").read_text())
        self.known_hosts = folder / "known_hosts"
        self.trust(self.host_key)
        self.config = folder / "config"
        self.configure()
        self.ssh = make_program(folder / "ssh", f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.config} "$@"\n')

    def _start(self):
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin yes\nUsePAM no\nPrintMotd no\n"
            f"SetEnv XDG_STATE_HOME={self.state} TEST_MARK={self.mark} PATH=/usr/local/bin:/usr/bin:/bin\n"
        )
        self.log = (self.folder / "sshd.log").open("w")
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        return until(self._listens, 10) and self.process.poll() is None

    def _listens(self):
        if self.process.poll() is not None:
            return False
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def trust(self, *keys):
        lines = [f"[127.0.0.1]:{self.port} {key.with_suffix('.pub').read_text()}" for key in keys]
        self.known_hosts.write_text("".join(lines))

    def configure(self, more="", key=None, port=None):
        self.config.write_text(
            f"Host lab\n  HostName 127.0.0.1\n  Port {port or self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {key or self.user_key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            f"  StrictHostKeyChecking ask\n{more}\n"
        )

    def environment(self, **more):
        return {"WALDO_SSH": self.ssh, "WALDO_REMOTE": WALDO, **more}

    def run(self, *words, options=(), timeout=60, **more):
        return waldo_run(*words, options=["--on", "lab", *options], timeout=timeout, **self.environment(**more))

    def close(self):
        run([WALDO, "down", "-q"], XDG_STATE_HOME=self.state)
        self.process.terminate()
        self.process.wait()
        self.log.close()
        for pid in with_environment("TEST_MARK", self.mark):
            kill(pid)


@pytest.fixture(scope="module")
def separation_folder():
    """sshd as root wants this folder, which the system's start makes."""
    folder = Path("/run/sshd")
    made = os.geteuid() == 0 and not folder.exists()
    if made:
        folder.mkdir(mode=0o755)
    yield
    if made:
        folder.rmdir()


@pytest.fixture
def server(separation_folder):
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        server = Server(Path(folder))
        yield server
        server.close()


def one_line(ran, code):
    assert ran.returncode == code, ran.stderr
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("waldo: lab: ") or "ssh" in lines[0], ran.stderr
    return lines[0]


def running_as(mark, word):
    """Pids of the test's processes that have this word in their command line."""
    everything = running()
    return [p for p in with_environment(*mark) if word in everything.get(p, (0, 0, ""))[2]]


# --- it works ---------------------------------------------------------------------------------------------------------


def test_a_program_runs_on_the_other_host(server):
    """Goal: `waldo run --on lab train.py`: the result is right, one line says where, and the daemon stays for the next."""
    ran = server.run("-c", "import torch; x = torch.arange(4.0, device='cuda'); print((x @ x).item())").ok()
    assert ran.stdout == "14.0\n"
    (line,) = ran.stderr.splitlines()
    assert line.startswith("waldo: lab · cuda:0 ")
    assert line.endswith(" ms")
    listed = run([WALDO, "ls", "--json", "--on", "lab"], **server.environment()).ok()
    assert json.loads(listed.stdout)["sessions"] == []
    assert until(lambda: not running_as(("TEST_MARK", server.mark), " bridge"), 5)


def test_gpus_over_ssh(server):
    ran = server.run("-c", "import torch; print(torch.cuda.device_count())", options=["--gpus", "2"]).ok()
    assert ran.stdout == "2\n"
    assert "cuda:0 and cuda:1" in ran.stderr


def test_a_plain_python_with_waldo_on(server):
    """Goal: WALDO_ON=lab python train.py, without `waldo run`, and nothing of it stays here."""
    mark = uuid.uuid4().hex
    ran = run(
        [sys.executable, "-c", "import torch; print(torch.ones(2).cuda().tolist())"],
        **server.environment(WALDO_ON="lab", HERE=mark),
    ).ok()
    assert ran.stdout == "[1.0, 1.0]\n"
    assert until(lambda: not with_environment("HERE", mark), 5)


def test_the_program_s_code_comes_back_and_nothing_stays(server):
    mark = uuid.uuid4().hex
    ran = server.run("-c", TOUCH + "raise SystemExit(5)", HERE=mark)
    assert ran.returncode == 5
    assert until(lambda: not with_environment("HERE", mark), 5)


def test_ls_and_down_over_ssh(server):
    process = subprocess.Popen(
        [WALDO, "run", "--on", "lab", "-c", TOUCH + "while True: x.sum().item()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(**server.environment()),
    )
    assert process.stdout.readline().startswith("ready")
    listed = run([WALDO, "ls", "--json", "--on", "lab"], **server.environment()).ok()
    assert len(json.loads(listed.stdout)["sessions"]) == 1
    run([WALDO, "down", "--on", "lab"], **server.environment()).ok()
    assert process.wait(10) == 9
    process.stdout.close()
    assert until(lambda: not with_environment("TEST_MARK", server.mark), 5)


def test_text_that_a_log_in_prints_is_skipped(server):
    noisy = make_program(server.folder / "noisy", f'#!/bin/sh\necho "Welcome to lab"\necho\nexec {WALDO} "$@"\n')
    assert server.run("-c", "print(7)", WALDO_REMOTE=noisy).ok().stdout == "7\n"


def test_a_stand_in_for_ssh_is_called_as_ssh_is(server):
    """Goal: WALDO_SSH gets options, the host, the command, and nothing else is asked of it: no -G, -O, ControlMaster."""
    log = server.folder / "calls"
    stand_in = make_program(
        server.folder / "stand-in",
        f'#!/bin/sh\necho "$@" >> {log}\nwhile [ "${{1#-}}" != "$1" ]; do shift; done\n'
        f'[ "$1" = lab ] || exit 255\nshift\nexport XDG_STATE_HOME={server.state}\nexec "$@"\n',
    )
    assert server.run("-c", TOUCH, WALDO_SSH=stand_in).ok().stdout == "ready [1.0, 1.0]\n"
    calls = log.read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].endswith(f" lab {WALDO} bridge")
    assert " -G" not in calls[0]
    assert "Control" not in calls[0]


def test_sessions_to_a_host_share_one_connection(server):
    """Goal: two processes of one program log in once: ours is the ControlMaster, when the user's configuration has none.

    Method: `ssh` on the PATH is the system's with the test's configuration; sshd's log counts log-ins.
    """
    path = f"{server.folder}:{os.environ['PATH']}"
    two = TOUCH + f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {TOUCH!r}], check=True)\n"
    ran = waldo_run("-c", two, options=["--on", "lab"], PATH=path, WALDO_REMOTE=WALDO).ok()
    assert ran.stdout == "ready [1.0, 1.0]\n" * 2
    assert (server.folder / "sshd.log").read_text().count("Accepted publickey") == 1


def test_the_user_s_own_sharing_is_left_alone(server):
    server.configure(f"  ControlMaster auto\n  ControlPath {server.folder}/mine\n")
    path = f"{server.folder}:{os.environ['PATH']}"
    arguments = make_program(
        server.folder / "ssh",
        f'#!/bin/sh\necho "$@" >> {server.folder}/calls\nexec {shutil.which("ssh")} -F {server.config} "$@"\n',
    )
    assert arguments.exists()
    waldo_run("-c", "pass", options=["--on", "lab"], PATH=path, WALDO_REMOTE=WALDO).ok()
    assert "ControlPath" not in (server.folder / "calls").read_text()


# --- when ssh has to ask ----------------------------------------------------------------------------------------------

PHRASE = "open sesame"


@pytest.fixture
def locked(server):
    """ssh must ask for the passphrase of the user's key. (A password takes the same way through ssh, but an sshd that takes
    one needs a user of the system, or PAM.)"""
    key = server.folder / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PHRASE, "-f", key], check=True)
    (server.folder / "authorized").write_text(key.with_suffix(".pub").read_text())
    server.configure(key=key)
    return server


class Terminal:
    """`waldo run` of TOUCH at a terminal of its own."""

    def __init__(self, server):
        words = [str(word) for word in (WALDO, "run", "--on", "lab", "-c", TOUCH)]
        environment = clean_environment(**server.environment())
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(words[0], words, environment)
        self.shown = ""

    def read_until(self, text, timeout=60):
        """False at the end of what is shown."""
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
                pytest.fail(f"no {text!r} in {timeout} s:\n{self.shown}")
            try:
                self.shown += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:  # how Linux says that nobody has the terminal open any more
                return False
        return True

    def type(self, line):
        self.shown = ""
        os.write(self.fd, f"{line}\n".encode())

    def exit_code(self):
        self.read_until("never shown")
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_ssh_may_ask_at_the_terminal(locked):
    """Goal: at a terminal ssh asks its questions first, as it does without us: host key, then passphrase; then the program runs."""
    locked.known_hosts.write_text("")
    terminal = Terminal(locked)
    assert terminal.read_until("continue connecting")
    terminal.type("yes")
    assert terminal.read_until("passphrase")
    terminal.type(PHRASE)
    code = terminal.exit_code()
    assert code == 0 and "ready [1.0, 1.0]" in terminal.shown, terminal.shown


def test_a_wrong_answer_at_the_terminal(locked):
    terminal = Terminal(locked)
    for _ in range(3):
        assert terminal.read_until("passphrase")
        terminal.type("wrong")
    code = terminal.exit_code()
    assert code == 4 and "could not log in (publickey)" in terminal.shown, terminal.shown


def test_nobody_can_be_asked_without_a_terminal(locked):
    """Goal: a script does not hang: exit code 4 and the command that asks."""
    assert "Try: " in one_line(locked.run("-c", TOUCH), 4)


def test_a_program_that_asks_in_place_of_the_terminal(locked):
    """Goal: SSH_ASKPASS does what it does for ssh, when SSH_ASKPASS_REQUIRE asks for it."""
    ask = make_program(locked.folder / "ask", f"#!/bin/sh\necho {PHRASE}\n")
    ran = locked.run("-c", TOUCH, SSH_ASKPASS=ask, SSH_ASKPASS_REQUIRE="force").ok()
    assert ran.stdout == "ready [1.0, 1.0]\n"


# --- it does not: each its own message and exit code ------------------------------------------------------------------


def test_waldo_missing_there(server):
    line = one_line(server.run("-c", "1", WALDO_REMOTE=""), 3)
    assert "not installed" in line
    assert "pip install waldo-gpu" in line
    assert "/opt/no/waldo" in one_line(server.run("-c", "1", WALDO_REMOTE="/opt/no/waldo"), 3)


def test_another_version_there(server):
    other = make_program(
        server.folder / "other",
        '#!/bin/sh\necho \'WALDO-BRIDGE {"waldo": "9.9.0", "protocol": 999, "devices": []}\'\nread x\n',
    )
    line = one_line(server.run("-c", "1", WALDO_REMOTE=other), 5)
    assert "9.9.0" in line
    assert "pip install waldo-gpu==" in line


def test_host_key_unknown(server):
    server.trust()
    line = one_line(server.run("-c", "1"), 4)
    assert "host key is not known" in line
    assert "lab true" in line


def test_host_key_changed(server):
    server.trust(make_key(server.folder / "other-host"))
    line = one_line(server.run("-c", "1"), 4)
    assert "ssh-keygen -R lab" in line


def test_log_in_refused(server):
    server.configure(key=make_key(server.folder / "stranger"))
    line = one_line(server.run("-c", "1"), 4)
    assert "could not log in (publickey)" in line
    assert "Try: " in line


def test_host_of_no_such_name(server):
    ran = waldo_run("-c", "1", options=["--on", "no-such-host.invalid"], **server.environment())
    assert ran.returncode == 3
    assert "no host of that name" in ran.stderr


def test_nothing_listens_there(server):
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        server.configure(port=taken.getsockname()[1])
        assert "refuses connections" in one_line(server.run("-c", "1"), 3)


def test_a_host_that_does_not_answer(server):
    """Goal: within ssh's own time limit, never a hang. Method: a socket that accepts and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        server.configure(port=silent.getsockname()[1])
        quick = make_program(
            server.folder / "quick", f'#!/bin/sh\nexec ssh -F {server.config} -oConnectTimeout=1 "$@"\n'
        )
        began = time.monotonic()
        line = one_line(server.run("-c", "1", WALDO_SSH=quick), 3)
        assert "no answer in time" in line
        assert time.monotonic() - began < 8


def test_ssh_is_missing_here(server):
    ran = waldo_run("-c", "1", options=["--on", "lab"], PATH="/nonexistent", WALDO_PYTHON=sys.executable)
    assert "openssh-client" in one_line(ran, 3)
    assert "WALDO_SSH" in one_line(server.run("-c", "1", WALDO_SSH="/no/such/ssh"), 3)


def test_a_log_in_that_prints_without_end(server):
    endless = make_program(server.folder / "endless", "#!/bin/sh\nexec yes\n")
    assert "prints text" in one_line(server.run("-c", "1", WALDO_REMOTE=endless), 3)


def test_the_program_is_not_started_when_there_is_no_link(server):
    server.trust()
    assert server.run("-c", "print('started')").stdout == ""


def test_a_plain_python_hears_the_same(server):
    """Goal: without `waldo run` the first use of a device raises what the broker says, within ssh's time."""
    server.configure(key=make_key(server.folder / "stranger"))
    ran = run([sys.executable, "-c", TOUCH], **server.environment(WALDO_ON="lab"))
    assert ran.returncode == 1
    assert "could not log in (publickey)" in ran.stderr


# --- whoever is killed, the others end --------------------------------------------------------------------------------


@pytest.fixture
def session(server):
    """A program in the middle of its work on the other host."""
    server.here = uuid.uuid4().hex
    process = subprocess.Popen(
        [WALDO, "run", "-q", "--on", "lab", "--grace", "5s", "-c", TOUCH + "while True: x = x + 1; x.sum().item()"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(**server.environment(HERE=server.here)),
        start_new_session=True,
    )
    assert process.stdout.readline().startswith("ready")
    yield process
    for pid in with_environment("HERE", server.here):
        kill(pid)
    process.wait()
    process.stdout.close()
    process.stderr.close()


def find(mark, word):
    found = running_as(mark, word)
    assert found, word
    return found[0]


@pytest.mark.parametrize("victim", ["run", "program", "worker"])
def test_whoever_is_killed_the_others_end(server, session, victim):
    """Goal: kill -9 of an end of the session ends all others but the daemon within 2 s; `run` after the grace of 5 s."""
    here, there = ("HERE", server.here), ("TEST_MARK", server.mark)
    pid = {
        "run": lambda: session.pid,
        "program": lambda: program_of(session),
        "worker": lambda: sessions_there(server)[0],
    }[victim]()
    kill(pid)
    killed = time.monotonic()
    code = session.wait(10)
    assert code == {"run": -9, "program": 137}.get(victim, 9), session.stderr.read()
    left = [lambda: with_environment(*here), lambda: busy_there(server, there)]
    for still in left:
        until(
            lambda still=still: not still(), max(0.5, (8.5 if victim == "run" else 3.5) - (time.monotonic() - killed))
        )
        assert not still(), {p: running().get(p) for p in still()}


@pytest.mark.parametrize("victim", ["ssh", "bridge"])
def test_what_carries_it_is_replaced(server, session, victim):
    """Goal: kill -9 of ssh, or of the bridge, costs a moment: another one carries the same session."""
    mark, word = {"ssh": (("HERE", server.here), "ssh -F"), "bridge": (("TEST_MARK", server.mark), " bridge")}[victim]
    worker, first = sessions_there(server), find(mark, word)
    kill(first)

    def another():
        return [p for p in with_environment(*mark) if word in running().get(p, (0, 0, ""))[2] and p != first]

    assert until(another, 10)
    assert session.poll() is None
    assert sessions_there(server) == worker
    kill(program_of(session))  # and it still ends as it should
    assert session.wait(10) == 137
    assert until(lambda: not sessions_there(server), 3)


def test_a_training_survives_cuts_and_an_outage(server, program, uncut):
    """Goal: WALDO_CUTS (10) kills of ssh or the bridge at any moment and WALDO_OUTAGE (3) s without the host: same losses.

    Method: sshd is stopped for the outage, so that new connections hang as those to a host that is away do.
    """
    cuts, outage = int(os.environ.get("WALDO_CUTS", "10")), float(os.environ.get("WALDO_OUTAGE", "3"))
    prng = random.Random(cuts)
    server.here = uuid.uuid4().hex
    stop, output = server.folder / "stop", server.folder / "output"
    marks = [(("HERE", server.here), "ssh -F"), (("TEST_MARK", server.mark), " bridge")]

    def carriers(which):
        mark, word = marks[which]
        return [p for p in with_environment(*mark) if word in running().get(p, (0, 0, ""))[2]]

    def steps():
        return len(output.read_text().splitlines())

    with output.open("w") as file:
        process = subprocess.Popen(
            [WALDO, "run", "-q", "--on", "lab", program, "1000000", stop],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**server.environment(HERE=server.here)),
            start_new_session=True,
        )
        assert until(output.read_text, 60)
        for cut in range(cuts):
            if cut == cuts // 2:
                os.kill(server.process.pid, signal.SIGSTOP)
            time.sleep(prng.uniform(0, 0.3))
            before = steps()
            for pid in carriers(prng.randrange(2)):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
            if cut == cuts // 2:
                time.sleep(outage)
                os.kill(server.process.pid, signal.SIGCONT)
            assert until(lambda n=before: steps() > n + 3, 60), process.poll()
        stop.touch()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert output.read_text() == uncut(steps() - 1)


def program_of(process):
    (pid,) = [p for p, (parent, _, command) in running().items() if parent == process.pid and "python" in command]
    return pid


def sessions_there(server):
    listed = json.loads(run([WALDO, "ls", "--json"], XDG_STATE_HOME=server.state).ok().stdout)
    return [session["pid"] for session in listed["sessions"]]


def busy_there(server, there):
    """What runs on the far side but the daemon and its spare worker."""
    return running_as(there, " bridge") + sessions_there(server)
