"""Ranks that die, do not come or disagree: the others hear of it in time, in c10d's words, and nothing hangs."""

import pytest
from support import waldo_run


@pytest.fixture
def saw(tmp_path, program):
    """saw(case): what each rank said, and after how many seconds."""

    def run(case):
        waldo_run(program("trouble.py"), tmp_path, case, options=["--gpus=2"], timeout=120).ok()
        found = {}
        for rank in range(2):
            if (tmp_path / f"{rank}.txt").exists():
                seconds, said = (tmp_path / f"{rank}.txt").read_text().split("\n", 1)
                found[rank] = (said, float(seconds))
        return found

    return run


@pytest.mark.parametrize(("case", "words"), [("mismatched_shapes", "[5]"), ("other_collectives", "broadcast")])
def test_ranks_that_disagree_all_learn_it(saw, case, words):
    found = saw(case)
    for rank in range(2):
        said, seconds = found[rank]
        assert said.startswith("RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running"), said
        assert words in said
        assert seconds < 20


def test_a_mismatch_does_not_break_the_group(saw):
    found = saw("goes_on_after_a_mismatch")
    assert [found[rank][0] for rank in range(2)] == ["6.0", "6.0"]


def test_a_killed_rank_fails_the_other(saw):
    found = saw("killed_rank")
    assert set(found) == {0}
    said, seconds = found[0]
    assert said.startswith("DistBackendError: allreduce on rank 0 of 2 failed"), said
    assert seconds < 20


@pytest.mark.parametrize("case", ["missing_rank", "barrier_without_the_other"])
def test_a_rank_that_does_not_come_is_a_timeout(saw, case):
    found = saw(case)
    said, seconds = found[0]
    assert said.startswith("DistBackendError") and "imed out" in said, said
    assert found[1][0] == "stayed"
    assert 2.5 < seconds < 20


def test_after_a_failure_the_device_goes_on(saw):
    assert saw("after_a_failure")[0][0] == "DistBackendError 3 DistBackendError"


def test_wrong_arguments_raise_as_c10d_does(saw):
    found = saw("wrong_arguments")
    lines = found[0][0].split("\n")
    assert "No backend type associated with device type cpu" in lines[0]
    assert lines[1:] == [
        "ValueError: Tensors must be contiguous",
        "ValueError: output tensor size must be equal to world_size times input tensor size",
        "ValueError: input tensor must be the same size as output size times world size",
        lines[4],
        "TypeError: Cannot use ReduceOp.AVG with boolean inputs",
        lines[6],
        lines[7],
    ]
    assert all(line != "no error" for line in lines)
    assert found[1][0].split("\n") == lines
