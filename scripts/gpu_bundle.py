#!/usr/bin/env python3
"""Packs what a machine with a GPU and no registry needs to build and test this tree: make gpu-bundle, make gpu-check there.

    scripts/gpu_bundle.py OUT.tar.gz

In it: the sources as git knows them (with changes that are not committed), third_party/include with the headers of the Debian
packages that the sources include, third_party/googletest, and pytest with what it needs as pure-Python wheels. PyTorch,
Python, a compiler, CMake, ninja and scikit-build-core are there.
"""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZE_MAX = 64 << 20
PACKAGES = ("libasio-dev", "libcli11-dev", "libspdlog-dev", "libfmt-dev", "nlohmann-json3-dev", "libxxhash-dev")
GOOGLETEST = Path("/usr/src/googletest")
WHEELS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


def headers():
    for package in PACKAGES:
        listed = subprocess.run(["dpkg", "-L", package], check=True, capture_output=True, text=True).stdout
        for path in map(Path, listed.splitlines()):
            if path.is_file() and path.is_relative_to("/usr/include"):
                yield path, "third_party/include/" + str(path.relative_to("/usr/include"))


def googletest():
    for path in sorted(GOOGLETEST.rglob("*")):
        inside = path.relative_to(GOOGLETEST)
        if path.is_file() and not {"test", "samples", "docs"} & set(inside.parts):
            yield path, f"third_party/googletest/{inside}"


def sources():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        if (ROOT / name).is_file():
            yield ROOT / name, name


def wheels():
    folder = ROOT / "build/gpu-wheels"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
        *WHEELS,
    ]
    if len(list(folder.glob("*-none-any.whl"))) < len(WHEELS):
        subprocess.run(command, check=True)
    for path in sorted(folder.glob("*-none-any.whl")):
        yield path, f"third_party/wheels/{path.name}"


def main():
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    count = 0
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for part in (sources, headers, googletest, wheels):
            for path, name in part():
                archive.add(path, f"waldo/{name}", recursive=False)
                count += 1
    size = len(packed.getvalue())
    print(f"{out}: {count} files, {size / (1 << 20):.1f} MiB")
    if size >= SIZE_MAX:
        sys.exit(f"that is more than {SIZE_MAX >> 20} MiB")
    out.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
