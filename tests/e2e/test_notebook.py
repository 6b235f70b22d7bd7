"""Notebooks: a kernel gets the devices from its environment (`waldo run -- jupyter lab`), by connect() or by the magics."""

import base64
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from support import ROOT, WALDO, plain_python, run, waldo_run

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = ROOT / "examples" / "gan.ipynb"
EXECUTE = ROOT / "tests" / "e2e" / "run_notebook.py"


@pytest.fixture
def jupyter(tmp_path):
    """An environment in which Jupyter writes nothing outside the test's folder."""
    folders = {
        name: tmp_path / name
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    return {**folders, "PYDEVD_DISABLE_FILE_VALIDATION": 1}


def cells_of(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def printed(cells):
    texts = [out.get("text", "") for cell in cells for out in cell["outputs"]]
    return "".join("".join(text) for text in texts)


def pictures(cells):
    data = [out["data"]["image/png"] for cell in cells for out in cell["outputs"] if "image/png" in out.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(png))))) for png in data]


def notebook(path, *sources):
    """Writes a notebook of these cells."""
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_the_notebook_is_as_committed():
    """Goal: the example says nothing of Waldo, and is kept without outputs."""
    assert "waldo" not in NOTEBOOK.read_text().lower()
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells_of(NOTEBOOK))


def test_the_gan_draws_the_same_pictures_as_on_the_cpu(tmp_path, jupyter):
    """Goal: examples/gan.ipynb runs in a Jupyter started by `waldo run`: same losses and pictures, bit for bit."""
    ran = {}
    for device, runner in (("cuda", waldo_run), ("cpu", plain_python)):
        out = tmp_path / f"{device}.ipynb"
        runner(EXECUTE, NOTEBOOK, out, "EPOCHS=3", **jupyter).ok()
        ran[device] = cells_of(out)
    assert printed(ran["cuda"]).startswith("cuda ") and printed(ran["cpu"]).startswith("cpu")
    losses = {device: printed(cells).splitlines()[1:] for device, cells in ran.items()}
    assert losses["cuda"] == losses["cpu"] and len(losses["cuda"]) == 3
    ours, reference = pictures(ran["cuda"]), pictures(ran["cpu"])
    assert len(ours) == len(reference) == 3  # the data, a row per epoch, from one digit to another
    assert all(np.array_equal(a, b) for a, b in zip(ours, reference, strict=True))
    assert all(picture.std() > 30 for picture in ours), "blank"


def test_a_kernel_by_its_environment(tmp_path, jupyter):
    """Goal: WALDO_ON in the kernel's environment is enough, without `waldo run`."""
    out = tmp_path / "out.ipynb"
    source = notebook(
        tmp_path / "n.ipynb", "import torch", "print(torch.cuda.device_count(), torch.ones(3).cuda().sum().item())"
    )
    run([sys.executable, EXECUTE, source, out], WALDO_ON="local", WALDO_GPUS=2, **jupyter).ok()
    assert printed(cells_of(out)).endswith("2 3.0\n")


def test_the_magics(tmp_path, jupyter):
    """Goal: %load_ext waldo, %waldo up, %waldo stats and %%waldo do what they say, in a plain kernel."""
    source = notebook(
        tmp_path / "n.ipynb",
        "%load_ext waldo\n%waldo up local --gpus 2",
        "import torch\nprint(torch.cuda.device_count())",
        "%%waldo local --gpus 2\nx = torch.ones(4, device='cuda').sum().item()",
        "%waldo stats",
        "try:\n    get_ipython().run_line_magic('waldo', 'dance')\nexcept ValueError as error:\n    print(error)",
        "try:\n    get_ipython().run_line_magic('waldo', 'up elsewhere')\nexcept RuntimeError as error:\n    print(error)",
    )
    out = tmp_path / "out.ipynb"
    plain_python(EXECUTE, source, out, **jupyter).ok()
    texts = [printed([cell]) for cell in cells_of(out)]
    assert texts[1].splitlines()[-1] == "2"
    assert "waldo: " in texts[2] and "1 waits" in texts[2] and "B up" in texts[2]
    assert "1 waits" in texts[3]
    assert texts[4].startswith("usage: %waldo up")
    assert "must come before the first `import torch`" in texts[5]


def test_jupyter_itself_takes_no_worker(tmp_path):
    """Goal: `waldo run -- COMMAND` with a command that is no torch program, as `jupyter lab` is, starts and ends like it."""
    ran = run([WALDO, "run", "--", sys.executable, "-c", "import nbclient; print('no torch')"]).ok()
    assert ran.stdout == "no torch\n"
