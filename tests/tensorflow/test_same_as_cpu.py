"""What programs print through us and on plain CPU TensorFlow, bit for bit (the worker runs the same kernels)."""

from __future__ import annotations

import ast
import json
from functools import cache

import pytest
from tf_support import PROGRAMS, run_program, why_not

if why_not():
    pytest.skip(why_not(), allow_module_level=True)


def cases_of(program: str) -> list[str]:
    tree = ast.parse((PROGRAMS / program).read_text())
    is_case = lambda f: any(isinstance(d, ast.Name) and d.id == "case" for d in f.decorator_list)  # noqa: E731
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and is_case(node)]


@cache
def printed(program: str, far: bool, **more: str) -> tuple[dict[str, object], str]:
    done = run_program(program, far, **more)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return dict(lines), f"exit code {done.returncode}\n{done.stderr[-3000:]}"


def same_lines(program: str, name: str, **more: str) -> None:
    ours, said = printed(program, True, **more)
    plain, _ = printed(program, False)
    assert name in ours, said
    assert not isinstance(plain[name], str), plain[name]
    assert ours[name] == plain[name]


@pytest.mark.parametrize("name", cases_of("cases.py"))
def test_operators_give_what_the_cpu_gives(name: str) -> None:
    same_lines("cases.py", name)


@pytest.mark.parametrize("name", cases_of("keras_cases.py"))
def test_keras_prints_what_the_cpu_prints(name: str) -> None:
    same_lines("keras_cases.py", name)


@pytest.mark.parametrize("name", cases_of("mirrored.py"))
def test_two_mirrored_devices_print_what_two_logical_cpus_print(name: str) -> None:
    same_lines("mirrored.py", name, WALDO_GPUS="2")
