"""Every example is an ordinary program: through us it ends with the very loss that it ends with on the CPU."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from support import ROOT, plain_python, waldo_run

EXAMPLES = ROOT / "examples"
SHORT = {
    "gan.py": ["--epochs", "2"],
    "cnn_digits.py": ["--epochs", "2"],
    "char_gpt.py": ["--epochs", "2", "--steps", "12"],
}


def test_every_example_is_compared():
    """Goal: an example added later is not forgotten here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_says_nothing_of_waldo(name):
    """Goal: the examples are what anybody would write for a GPU."""
    assert "waldo" not in (EXAMPLES / name).read_text().lower()


@pytest.mark.parametrize("name", SHORT)
def test_losses_are_those_of_the_cpu(name, tmp_path):
    """Goal: bit-equal losses in every epoch, with `cuda` through us and with `cpu` plain, same seed."""
    losses = {}
    for device, runner in (("cuda", waldo_run), ("cpu", plain_python)):
        file = tmp_path / f"{device}.json"
        out = ["--out", tmp_path / f"{device}.png"] if name == "gan.py" else []
        runner(EXAMPLES / name, "--device", device, *SHORT[name], *out, "--json", file).ok()
        result = json.loads(file.read_text())
        assert result["device"].startswith(device)
        losses[device] = result["epochs"]
    assert losses["cuda"] == losses["cpu"]
    assert losses["cuda"][-1] != losses["cuda"][0], "nothing was learned between two epochs"


# --- the picture ------------------------------------------------------------------------------------------------------


def tiles_of(path, rows):
    """The pictures of gan.png as (rows, 16, 8, 8) in 0 … 1: 4 screen pixels per pixel, a line of one pixel between."""
    sheet = np.asarray(Image.open(path), dtype=np.float64)[::4, ::4] / 255
    assert sheet.shape == (rows * 9 + 1, 16 * 9 + 1)
    return sheet[:-1, :-1].reshape(rows, 9, 16, 9)[:, 1:, :, 1:].transpose(0, 2, 1, 3)


def neighbour_correlation(tiles):
    """How much a pixel resembles the one beside it; about 0 for noise."""
    tiles = tiles.reshape(-1, 8, 8)
    pairs = [(tiles[:, :, :-1], tiles[:, :, 1:]), (tiles[:, :-1], tiles[:, 1:])]
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def distance_to_digits(tiles, digits):
    """Mean over the tiles of the distance to the nearest real digit."""
    tiles = tiles.reshape(len(tiles), -1)
    return np.sqrt(((tiles[:, None] - digits[None]) ** 2).sum(-1)).min(1).mean()


def test_the_picture_shows_digits(tmp_path):
    """Goal: the GAN run through us draws digits: not blank, not noise, not one picture sixteen times.

    Method: the last row is compared with the real digits, and with two things it must not be: shuffled pixels of the
    same row, and real digits' pixels in random places.
    """
    picture, epochs = tmp_path / "gan.png", 10
    waldo_run(EXAMPLES / "gan.py", "--epochs", epochs, "--device", "cuda", "--out", picture).ok()
    rows = tiles_of(picture, epochs)
    last = rows[-1]
    digits = load_digits().images.reshape(-1, 64) / 16
    random = np.random.default_rng(0)
    noise = random.permuted(last.reshape(16, 64), axis=1)

    assert last.std() > 0.2, "blank"
    assert np.mean([tile.std() for tile in last]) > 0.2, "flat tiles"
    assert neighbour_correlation(last) > neighbour_correlation(noise) + 0.25, "noise"
    assert distance_to_digits(last, digits) < 0.58 * distance_to_digits(noise, digits), "nothing like a digit"
    differences = np.abs(last[:, None] - last[None]).mean((2, 3))
    assert np.median(differences[np.triu_indices(16, 1)]) > 0.1, "sixteen times the same"
    assert np.abs(rows[-1] - rows[0]).mean() > 0.1, "it did not change while it learned"
