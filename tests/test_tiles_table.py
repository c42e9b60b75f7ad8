"""The table of tiles beside whole pictures: a quick run, its numbers; no times."""

import pytest

from experiments import tiles
from fmi.networks.weights import embedded_path


@pytest.mark.skipif(not embedded_path().is_file(), reason="the embedded network is not there")
def test_both_compute_the_same_gradient(capsys):
    (row,) = tiles.measure("embedded", tiles.QUICK)
    assert row.tiles >= 4  # of crops of 64 pixels in 128 x 96
    assert row.difference < (1e-3 if row.precision == "float32" else 0.5)
    assert 0 < row.low <= row.ratio <= row.high
    title, head, cells = tiles.lines([row])
    assert row.precision in title and "128 x 96" in cells and f"{row.ratio:.2f}" in cells
    assert tiles.main(["--weights", "nowhere.params"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_layers_that_the_weights_lack_are_left_out():
    assert tiles.measure("embedded", [tiles.Case("relu9_9", 64, 64, 32)]) == []
