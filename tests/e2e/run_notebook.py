"""Executes a notebook as Jupyter does, in a kernel of its own: python run_notebook.py NOTEBOOK OUT [NAME=VALUE …]

A line `NAME = …` of the notebook becomes `NAME = VALUE`. The kernel is a child of this process and has its environment.
"""

import re
import sys
from pathlib import Path

import nbclient
import nbformat


def main():
    source, out, *settings = sys.argv[1:]
    notebook = nbformat.read(source, as_version=4)
    for name, value in (setting.split("=", 1) for setting in settings):
        cells = [cell for cell in notebook.cells if re.search(rf"^{name} = ", cell.source, re.MULTILINE)]
        assert cells, f"{source} sets no {name}"
        for cell in cells:
            cell.source = re.sub(rf"^{name} = .*", f"{name} = {value}", cell.source, flags=re.MULTILINE)
    nbclient.NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(Path(source).parent)}}
    ).execute()
    nbformat.write(notebook, out)


if __name__ == "__main__":
    main()
