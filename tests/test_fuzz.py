"""Broken and hostile files; the full numbers with FMI_FUZZ=20000 (a tenth of it for pictures)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = int(os.environ.get("FMI_FUZZ", "0"))
COUNTS = {"weights": FULL or 300, "pictures": FULL // 10 or 400}


@pytest.mark.parametrize("what", COUNTS)
def test_every_file_is_answered(what):
    for package in ("h5py", "safetensors", "scipy"):
        pytest.importorskip(package)
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, str(script), what, "--count", str(COUNTS[what])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result.pop("files") >= 0.95 * COUNTS[what] and result.pop("MB") < 1024
    for kind, counts in result.items():
        assert counts["refused"] and counts["accepted"] and counts["seconds"] < 10, kind
