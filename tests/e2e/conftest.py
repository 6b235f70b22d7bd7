"""The training that tests of resuming disturb, and what it prints when nobody does."""

import pytest
from support import ROOT, waldo_run


@pytest.fixture(scope="session")
def program():
    return ROOT / "tests" / "e2e" / "train.py"


@pytest.fixture(scope="session")
def uncut(program):
    """uncut(n): the output of n undisturbed steps."""
    printed = {}

    def of(steps):
        if steps not in printed:
            printed[steps] = waldo_run(program, str(steps)).ok().stdout
        return printed[steps]

    return of
