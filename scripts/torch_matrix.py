#!/usr/bin/env python3
"""Compiles what knows PyTorch against every PyTorch that Waldo is for, and prints a table (make torch-matrix).

    scripts/torch_matrix.py [--versions 2.11.0,2.12.0] [--jobs 2] [-- arguments for pip download]

A wheel is downloaded once into build/torch/wheels, CPU or CUDA build as the registry has it; headers and the libraries to
link with are unpacked below build/torch. Nothing is installed and nothing runs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build/torch"
VERSIONS = ("2.11.0", "2.12.0", "2.13.0")
PARTS = {"front end": "waldo_torch", "Python module": "_waldo_torch", "worker": "waldo_backend_torch"}
WANTED = re.compile(
    r"torch/include/.*|torch/version\.py|torch/lib/lib(c10|torch_cpu|torch_python)\.so|torchgen/packaged/ATen/native/.*yaml"
)


def quiet(command, log):
    with log.open("a") as file:
        return subprocess.run(
            list(map(str, command)), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode


def unpacked(version, pip_arguments):
    """The folder with torch/ in it; fetched and unpacked at the first call."""
    folder, wheels = CACHE / version, CACHE / "wheels"
    if (folder / "complete").exists():
        return folder
    wheels.mkdir(parents=True, exist_ok=True)
    print(f"torch {version}: downloading", file=sys.stderr)
    log = CACHE / f"{version}-pip.log"
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-q",
        "-d",
        wheels,
        *pip_arguments,
        f"torch=={version}",
    ]
    if quiet(download, log) != 0:
        raise SystemExit(f"pip download failed:\n{log.read_text()[-2000:]}")
    wheel = max(wheels.glob(f"torch-{version}[-+]*.whl"), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if WANTED.fullmatch(name)])
    wheel.unlink()
    (folder / "complete").touch()
    return folder


def compiled(version, folder, jobs):
    """{part: what to print}."""
    build, log = CACHE / f"build-{version}", CACHE / f"{version}.log"
    log.unlink(missing_ok=True)
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DWALDO_TESTS=OFF",
                 f"-DPython_EXECUTABLE={sys.executable}", f"-DPython3_EXECUTABLE={sys.executable}",
                 f"-Dwaldo_torch_dir={folder / 'torch'}"]  # fmt: skip
    if quiet(configure, log) != 0:
        return dict.fromkeys(PARTS, "not configured")
    results = {}
    for part, target in PARTS.items():
        started = time.monotonic()
        code = quiet(["cmake", "--build", build, "-j", jobs, "--target", target], log)
        results[part] = f"ok {time.monotonic() - started:.0f} s" if code == 0 else "error"
        print(f"torch {version}: {part}: {results[part]}", file=sys.stderr)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", default=",".join(VERSIONS))
    parser.add_argument("--jobs", default="2")
    parser.add_argument("pip", nargs="*")
    options = parser.parse_args()
    rows = []
    for version in options.versions.split(","):
        folder = unpacked(version, options.pip)
        text = (folder / "torch/version.py").read_text()
        cuda = re.search(r"^cuda[^=]*= '([^']+)'", text, re.MULTILINE)
        rows.append((version, f"CUDA {cuda.group(1)}" if cuda else "CPU", compiled(version, folder, options.jobs)))
    print(f"{'torch':8} {'build':10}" + "".join(f"{part:>16}" for part in PARTS))
    for version, build, results in rows:
        print(f"{version:8} {build:10}" + "".join(f"{results[part]:>16}" for part in PARTS))
    failed = [version for version, _, results in rows if not all(text.startswith("ok") for text in results.values())]
    for version in failed:
        log = (CACHE / f"{version}.log").read_text().splitlines()
        print(f"\ntorch {version} (all of it: build/torch/{version}.log)")
        print("\n".join([line for line in log if "error" in line][:20] or log[-20:]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
