#!/usr/bin/env python3
"""Prints what pyproject.toml asks for, one requirement a line: scripts/requirements.py build test examples

`build` is [build-system].requires without torch (the Makefile installs torch first, by itself); each other word is an
extra. pyproject.toml stays the only list.
"""

import sys
import tomllib
from pathlib import Path


def main():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    wanted = []
    for word in sys.argv[1:]:
        if word == "build":
            wanted += [r for r in project["build-system"]["requires"] if not r.startswith("torch")]
        elif word == "torch":
            wanted += [r for r in project["build-system"]["requires"] if r.startswith("torch")]
        else:
            wanted += project["project"]["optional-dependencies"][word]
    print("\n".join(dict.fromkeys(wanted)))


if __name__ == "__main__":
    main()
