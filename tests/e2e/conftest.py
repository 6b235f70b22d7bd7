"""What tests of resuming share: another host, the training that they disturb, and what it prints when nobody does."""

import pytest
from host import host  # noqa: F401 (a fixture)
from support import ROOT, waldo_run


@pytest.fixture(scope="session")
def program():
    return ROOT / "tests" / "e2e" / "train.py"


@pytest.fixture(scope="session")
def uncut(program):
    """uncut(n): what n undisturbed steps print. One run serves many tests."""
    printed = []

    def of(steps):
        if len(printed) < steps + 1:  # "ready", then a line per step
            printed[:] = waldo_run(program, str(max(2 * steps, 500))).ok().stdout.splitlines(keepends=True)
        return "".join(printed[: steps + 1])

    return of
