"""The program's side of one operation, in instructions: the same on every machine with this compiler, so it may be asserted.

bench/instructions.json holds what was counted last. A change that makes it more must say why and write the new number
there; one that makes it less writes it there too, so that the gain is kept.
"""

import json
import re
import shutil

import pytest
from support import ROOT, WALDO, run

PROGRAM = ROOT / "build" / "release" / "bench" / "op_latency"
KNOWN = json.loads((ROOT / "bench" / "instructions.json").read_text())


def instructions(name, calls, tmp_path):
    """What callgrind counts inside counted_operations(), which does `calls` operations."""
    out = tmp_path / f"callgrind.{calls}"
    ran = run(
        [
            *("valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_operations*"),
            *(f"--callgrind-out-file={out}", PROGRAM, "--count", name, calls),
        ],
        ATEN_CPU_CAPABILITY="default",
        WALDO_PACKAGE_DIR=next((WALDO.parent.parent / "lib").glob("python3*/site-packages/waldo")),
    ).ok()
    return int(re.search(r"Collected : (\d+)", ran.stderr).group(1))


@pytest.mark.parametrize("name", KNOWN)
def test_instructions_may_fall_not_rise(name, tmp_path):
    """Goal: the hot path does not grow unseen.

    Method: 3,000 operations less 1,000, so that the rest does not count. How full the outbox gets before the loop thread
    empties it moves the figure by some percent, so that much is allowed.
    """
    if not shutil.which("valgrind"):
        pytest.fail("valgrind is missing: scripts/debian.sh test")
    each = (instructions(name, 3000, tmp_path) - instructions(name, 1000, tmp_path)) / 2000
    print(f"{name}: {each:.0f} instructions, {KNOWN[name]} known")
    assert each <= KNOWN[name] * 1.08, "more than before"
    assert each >= KNOWN[name] * 0.85, "less than before: write the new number into bench/instructions.json"
