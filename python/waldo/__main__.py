"""``python -m waldo`` is the command ``waldo``."""

from __future__ import annotations

import os
import sys


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(here, "bin", "waldo")
    if not os.access(program, os.X_OK):
        print(f"waldo: {program} is missing; install again: pip install --force-reinstall waldo-gpu", file=sys.stderr)
        return 1
    os.environ.setdefault("WALDO_PACKAGE_DIR", here)
    os.environ.setdefault("WALDO_PYTHON", sys.executable)
    os.execv(program, ["waldo", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
