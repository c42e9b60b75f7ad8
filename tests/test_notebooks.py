"""Every notebook runs from top to bottom and shows pictures."""

from pathlib import Path

import pytest

from fmi.networks import weights

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "experiments/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    if not weights.embedded_path().is_file():
        pytest.skip("the embedded network is not there")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    committed = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in committed.cells), "committed with output"
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    shown = [o for o in outputs if {"image/png", "text/html"} & set(o.get("data", {}))]
    assert len(shown) >= 3
