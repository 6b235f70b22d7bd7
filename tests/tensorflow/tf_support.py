"""TensorFlow through us against plain TensorFlow on the CPU: the same program in two processes, what it prints compared.

Skipped, with the reason, where TensorFlow or our build for it is not there. A pytest process of its own, because it
starts others; nothing here imports tensorflow.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


def _package() -> Path | None:
    spec = importlib.util.find_spec("waldo")
    return Path(spec.origin).parent if spec and spec.origin else None


def why_not() -> str:
    """Why these tests cannot run here; "" when they can."""
    package = _package()
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:  # this folder itself is found, as a namespace
        return "tensorflow is not installed"
    if package is None or not (package / "libwaldo_tensorflow.so").exists():
        return "Waldo is built without TensorFlow (-DWALDO_TENSORFLOW=ON)"
    return ""


def environment(far: bool, **more: str) -> dict[str, str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith(("WALDO_", "TF_"))}
    base |= {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONHASHSEED": "0"}
    if far:
        base |= {"WALDO_ON": "local"}
    return base | more


def run_program(
    name: str, far: bool, *words: str, timeout: float = 300, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAMS / name), *words],
        env=environment(far, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
