"""`waldo run` with an unmodified TensorFlow program: here, over ssh, beside PyTorch, and when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from processes import running, until, with_environment
from support import WALDO, clean_environment, plain_python, run, waldo_run, with_stats
from test_ssh import pytestmark as needs_openssh
from test_ssh import separation_folder, server  # noqa: F401
from tf_support import PROGRAMS, why_not

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}
TRAIN = PROGRAMS / "train_tf.py"
ONE_LINE = "import tensorflow as tf; print(float(tf.reduce_sum(tf.ones([3]))))"


@pytest.fixture(scope="module")
def plain():
    """What the program prints on the CPU, without us."""
    return plain_python(TRAIN, **QUIET).ok().stdout


def test_the_same_numbers_as_on_the_cpu(plain):
    ran = waldo_run(TRAIN, SAY_DEVICE=1, **QUIET).ok()
    assert ran.stdout == plain
    assert ran.stderr.count("GPU:0") >= 2
    assert ran.stderr.startswith("waldo: /GPU:0 is this machine's CPU (embedded worker).")


def test_gpus(tmp_path):
    for words in ([], ["split"]):
        waldo_run(PROGRAMS / "devices.py", *words, options=["--gpus", "2", "-q"], **QUIET).ok()


def test_a_plain_import_is_untouched():
    ran = plain_python("-c", "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'))", **QUIET).ok()
    assert ran.stdout == "[]\n"
    assert "waldo" not in ran.stderr


def test_waldo_on_without_waldo_run():
    ran = run([sys.executable, "-c", ONE_LINE], WALDO_ON="local", **QUIET).ok()
    assert ran.stdout == "3.0\n"


def test_the_program_s_exit_code():
    assert waldo_run("-c", ONE_LINE + "; raise SystemExit(5)", options=["-q"], **QUIET).returncode == 5
    assert waldo_run("-c", ONE_LINE + "; 1 / 0", options=["-q"], **QUIET).returncode == 1


def test_pytorch_and_tensorflow_in_one_process():
    ran = waldo_run(PROGRAMS / "both.py", options=["-q"], **QUIET).ok()
    first, second, third = ran.stdout.splitlines()
    assert first == "14.0 14.0"
    assert second.startswith("cuda:0 ") and second.endswith("GPU:0")
    assert third == "[0.0, 5.0, 10.0, 15.0]"


def test_a_worker_that_dies_is_unavailable_and_exit_code_9(tmp_path):
    """Goal: kill -9 of the worker while the program computes: TensorFlow's own error, at once, and code 9."""
    program = subprocess.Popen(
        [WALDO, "run", "-q", TRAIN, "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(MARK=str(tmp_path), **QUIET),
    )
    for _ in range(3):
        assert program.stdout.readline()
    everything = running()
    (worker,) = (
        pid for pid in with_environment("MARK", str(tmp_path)) if " worker " in everything.get(pid, (0, 0, ""))[2]
    )
    os.kill(worker, signal.SIGKILL)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 9, said
    assert "UnavailableError" in said


def test_a_step_of_fit_is_one_message(tmp_path):
    """Goal: with Keras's default (jit_compile), a steady step is one call, and its bytes little more than the batch."""
    text = PROGRAMS / "fit_steps.py"
    counts = []
    for epochs in (2, 4):
        counts.append(with_stats(tmp_path, text, str(epochs), **QUIET)[1])
    steps = 2 * 32
    calls = (counts[1]["calls"] - counts[0]["calls"]) / steps
    print(json.dumps({k: (counts[1][k] - counts[0][k]) / steps for k in ("calls", "messages", "waits", "bytes_up")}))
    assert calls < 12


@pytest.mark.skipif(needs_openssh.args[0], reason="no OpenSSH here")
def test_over_ssh(server, plain):  # noqa: F811
    """Goal: --on lab, through sshd: the same numbers, one line that says where, and no torch in that worker."""
    ran = server.run(TRAIN, timeout=400, **QUIET).ok()
    assert ran.stdout == plain
    (line,) = (line for line in ran.stderr.splitlines() if line.startswith("waldo: "))
    assert line.startswith("waldo: lab · /GPU:0 ")


@pytest.mark.skipif(needs_openssh.args[0], reason="no OpenSSH here")
def test_a_worker_for_tensorflow_maps_no_pytorch(server):  # noqa: F811
    code = ONE_LINE + "; input()"
    program = subprocess.Popen(
        [WALDO, "run", "-q", "--on", "lab", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(**server.environment(**QUIET)),
    )
    assert program.stdout.readline() == "3.0\n"
    everything = running()
    workers = [p for p in with_environment("TEST_MARK", server.mark) if " worker " in everything.get(p, (0, 0, ""))[2]]
    maps = "".join(open(f"/proc/{pid}/maps").read() for pid in workers)
    assert "libtensorflow_cc" in maps
    assert "libtorch" not in maps
    program.communicate("\n", timeout=120)
    assert program.returncode == 0
    assert until(lambda: not [p for p in workers if p in running()], 10)
