#!/usr/bin/env python3
"""Prints what pyproject.toml asks for, one requirement a line: scripts/requirements.py build test examples

`build` is [build-system].requires, `torch` the PyTorch that the package is built for (the Makefile installs it first, by
itself); each other word is an extra. pyproject.toml and waldo_build.py stay the only lists.
"""

import re
import sys
import tomllib
from pathlib import Path


def main():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    wanted = []
    for word in sys.argv[1:]:
        if word == "build":
            wanted += project["build-system"]["requires"]
        elif word == "torch":
            text = (Path(__file__).parent / "waldo_build.py").read_text()
            wanted.append(re.search(r'^TORCH = "(.+)"$', text, re.MULTILINE).group(1))
        else:
            wanted += project["project"]["optional-dependencies"][word]
    print("\n".join(dict.fromkeys(wanted)))


if __name__ == "__main__":
    main()
