"""The comparison of descents: shares by hand, every descent on the embedded network."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from experiments import descents
from fmi.networks.weights import embedded_path


def test_shares_by_hand():
    curves = {
        "code": [10.0, 6.0, 5.0, 4.0],
        "sooner": [10.0, 4.0, 3.0],
        "on the way": [10.0, 9.0, 4.0, 8.0],
        "never": [10.0, 9.0],
    }
    found = descents.shares(curves)
    assert found.pop("code") == 1
    assert math.isnan(found.pop("never"))
    assert found == {"sooner": 0.5, "on the way": 0.75}
    assert descents.told(curves) == "sooner 0.50; on the way 0.75; never (2.25)"


@pytest.mark.skipif(not embedded_path().is_file(), reason="the embedded network is not there")
def test_all_descents_are_run_and_plotted(picture_folder, tmp_path, capsys, monkeypatch):
    for own in descents.DESCENTS.values():
        monkeypatch.setitem(own, "steps", 3)
    words = ["WEIGHTS=embedded", "LONG_EDGE=48", "LAYERS=relu2_2", f"PICTURES={picture_folder}"]
    assert descents.main([*words, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "descents.json").read_text())
    assert set(found) == {"relu2_2:0", "purposeful", "gatys"}
    for curves in found.values():
        assert set(curves) == set(descents.DESCENTS)
        assert {len(losses) for losses in curves.values()} == {3}
        assert len({losses[-1] for losses in curves.values()}) >= 4  # they are different descents
    with Image.open(tmp_path / "descents.png") as image:
        assert np.asarray(image.convert("L")).std() > 10
    out = capsys.readouterr().out
    assert all(name in out for name in list(descents.DESCENTS)[1:])


def test_mistakes_are_one_line_and_status_2(tmp_path, capsys):
    for wrong in ("LAYERS=relu9_9", "STEPS=none"):
        assert descents.main([wrong, "WEIGHTS=embedded", "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
