"""How `cuda` comes into a process: the start-up hook, what it leaves alone, and what it says when it cannot."""

import re
import subprocess
import sys

import pytest
from support import ROOT, clean_environment, plain_python, run


def python(code, **environment):
    return run([sys.executable, "-c", code], **environment)


def test_import_waldo_is_light():
    """Goal: under 150 ms and without torch; no side effect. Method: the time is this process's own on a CPU."""
    code = (
        "import sys, time; t = time.process_time(); import waldo; d = time.process_time() - t;"
        "print(d < 0.15, 'torch' in sys.modules, len(sys.meta_path))"
    )
    base = python("import sys; print(len(sys.meta_path))").ok().stdout.strip()
    assert python(code).ok().stdout.split() == ["True", "False", base]


def test_version_is_the_package_s():
    """Goal: one version everywhere; CMakeLists.txt is where it stands."""
    stated = re.search(r"project\(waldo VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert python("import waldo; print(waldo.__version__)").ok().stdout == f"{stated}\n"


def test_a_program_without_torch_loads_nothing():
    ran = python("import sys; print([m for m in sys.modules if m.startswith('torch')])", WALDO_ON="local").ok()
    assert ran.stdout == "[]\n"
    assert ran.stderr == ""


def test_importing_torch_starts_no_worker():
    """Goal: `import torch` opens nothing. Method: descriptors and children of the process before any use."""
    code = (
        "import os, torch\n"
        "print(sum('socket' in os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{fd}') or os.path.islink(f'/proc/self/fd/{fd}')))\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read().split())\n"
        "print(torch.cuda.is_available(), torch.cuda.device_count())\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read().split())\n"
    )
    assert python(code, WALDO_ON="local").ok().stdout == "0\n[]\nTrue 1\n[]\n"


def test_another_torch_version_is_one_line(tmp_path):
    """Goal: an unknown PyTorch is left alone, with one line. Method: a package of that name and version."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("from .version import __version__\n")
    (tmp_path / "torch/version.py").write_text("__version__ = '2.6.0'\ncuda: str = None\n")
    ran = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch; print(torch.__version__)", WALDO_ON="local"
    ).ok()
    assert ran.stdout == "2.6.0\n"
    assert len(ran.stderr.splitlines()) == 1
    assert "PyTorch 2.6.0" in ran.stderr
    strict = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch", WALDO_ON="local", WALDO_STRICT="1"
    )
    assert strict.returncode == 1
    assert "ImportError: waldo: PyTorch 2.6.0" in strict.stderr


def test_a_cuda_build_without_its_libraries_is_one_line(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("from .version import __version__\n")
    (tmp_path / "torch/version.py").write_text("__version__ = '2.13.0+cu130'\ncuda: str = '13.0'\n")
    ran = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch; print('on')", WALDO_ON="local").ok()
    assert ran.stdout == "on\n"
    assert len(ran.stderr.splitlines()) == 1
    assert "does not fit PyTorch 2.13.0+cu130" in ran.stderr


@pytest.mark.parametrize("arguments", ["''", "3", "'local', gpus=-1", "'local', gpus='2'", "gpus=1.5", "gpus=65"])
def test_connect_refuses_nonsense(arguments):
    ran = python(f"import waldo\ntry:\n  waldo.connect({arguments})\nexcept ValueError as e:\n  print('ValueError', e)")
    assert ran.stdout.startswith("ValueError waldo.connect")


@pytest.mark.parametrize("number", ["two", "-1", "65", "1.0", "٣"])
def test_a_wrong_number_of_gpus_is_one_line(number):
    """Goal: WALDO_GPUS that is no number of devices is said; PyTorch is then what it is without us."""
    ran = python("import torch; print(torch.cuda.device_count())", WALDO_GPUS=number).ok()
    assert ran.stdout == "0\n"
    assert ran.stderr == f'waldo: no cuda devices here: WALDO_GPUS is "{number}"; try a number from 1 to 64\n'


def test_connect_twice_the_same_is_fine():
    ran = python("import waldo; waldo.connect('local'); import torch; waldo.connect('local'); print('ok')").ok()
    assert ran.stdout == "ok\n"


def test_python_m_waldo_is_the_command():
    ran = plain_python("-m", "waldo", "--version").ok()
    assert "waldo" in ran.stdout


def test_stats_before_torch():
    assert python("import waldo; print(waldo.stats()['waits'], waldo.stats()['waits_at'])").ok().stdout == "0 []\n"


def test_device_lost_error_is_known_without_torch():
    code = "import waldo, sys; print(issubclass(waldo.DeviceLostError, RuntimeError), 'torch' in sys.modules)"
    assert python(code).ok().stdout == "True False\n"


def test_a_spawned_child_has_devices_of_its_own(script):
    """Goal: a process of `multiprocessing` (spawn) that uses cuda gets a session, with the same environment."""
    program = script(
        "import torch, torch.multiprocessing as mp\n"
        "def child(rank, q): q.put((rank, (torch.ones(2, device='cuda') + rank).tolist()))\n"
        "if __name__ == '__main__':\n"
        "    import waldo\n"
        "    print((torch.ones(1, device='cuda') + 1).item())\n"
        "    q = mp.get_context('spawn').SimpleQueue()\n"
        "    mp.spawn(child, (q,), nprocs=2)\n"
        "    print(sorted(q.get() for _ in range(2)))\n"
    )
    ran = plain_python(program, WALDO_ON="local").ok()
    assert ran.stdout == "2.0\n[(0, [1.0, 1.0]), (1, [2.0, 2.0])]\n"


def test_a_crash_in_the_hook_does_not_stop_python(tmp_path):
    """Goal: a package that is broken is one line, and torch is what it is without us."""
    code = (
        "import waldo._hook as h\n"
        "def broken(*a): raise OSError('no such library')\n"
        "h._load = broken\n"
        "import torch\nprint(torch.cuda.is_available())\n"
    )
    ran = python(code, WALDO_ON="local").ok()
    assert ran.stdout == "False\n"
    assert "no such library" in ran.stderr


def test_the_line_at_interpreter_start_is_quick():
    """Goal: < 1 ms when unset. Method: the line itself, a thousand times."""
    code = (
        "import os, site, time, pathlib, sysconfig\n"
        "line = pathlib.Path(sysconfig.get_paths()['purelib'], 'waldo.pth').read_text()\n"
        "t = time.process_time()\nfor _ in range(1000): exec(line)\n"
        "print(time.process_time() - t < 1)\n"
    )
    assert python(code).ok().stdout == "True\n"
    assert subprocess.run([sys.executable, "-c", "pass"], env=clean_environment(), check=False).returncode == 0
