"""IPython magics: what `%load_ext waldo` brings.

%load_ext waldo
%waldo up lab          # waldo.connect("lab"), before the first `import torch`
%waldo stats           # what was sent, and which lines waited

%%waldo lab            # %waldo up lab, then runs the cell and says what it cost
"""

from __future__ import annotations

import shlex
from typing import Any

import waldo

USAGE = "usage: %waldo up [TARGET] [--gpus N] | %waldo stats | %%waldo [TARGET] [--gpus N]"


def _up(words: list[str]) -> None:
    target, gpus = "local", 0
    rest = list(words)
    if "--gpus" in rest:
        at = rest.index("--gpus")
        number = rest[at + 1] if at + 1 < len(rest) else ""
        if not number.isdecimal():
            raise ValueError(USAGE)
        gpus = int(number)
        del rest[at : at + 2]
    if len(rest) > 1 or any(word.startswith("-") for word in rest):
        raise ValueError(USAGE)
    waldo.connect(rest[0] if rest else target, gpus)


def _said(before: waldo.Stats | None = None) -> str:
    """One line of counters, then the lines that waited most; those since `before` only, if given."""
    now = waldo.stats()
    past: dict[str, Any] = dict(before or {})
    counts = {name: now[name] - past.get(name, 0) for name in ("calls", "waits", "bytes_up", "bytes_down")}  # type: ignore[literal-required]
    lines = ["{calls} calls · {waits} waits · {bytes_up} B up · {bytes_down} B down".format(**counts)]
    seen = {(place["file"], place["line"]): place["count"] for place in past.get("waits_at", [])}
    places = [(p["count"] - seen.get((p["file"], p["line"]), 0), p) for p in now["waits_at"]]
    for count, place in sorted((entry for entry in places if entry[0]), key=lambda entry: -entry[0])[:5]:
        lines.append(f"  {count} waits at {place['file']}:{place['line']}")
    return "\n".join(lines)


def _line(line: str) -> None:
    words = shlex.split(line)
    if words[:1] == ["up"]:
        return _up(words[1:])
    if words == ["stats"]:
        return print(_said())
    raise ValueError(USAGE)


def register(shell: Any) -> None:
    def waldo_magic(line: str, cell: str | None = None) -> None:
        if cell is None:
            return _line(line)
        if line.strip():
            _up(shlex.split(line))
        before = waldo.stats()
        shell.run_cell(cell).raise_error()
        print("waldo: " + _said(before))

    shell.register_magic_function(waldo_magic, "line_cell", "waldo")
