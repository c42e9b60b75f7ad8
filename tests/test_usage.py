"""The scripts in experiments/ say what they take: with ``--help``, before they compute anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import demo, precisions, presets
from experiments.claims import __main__ as claims

ROOT = Path(__file__).resolve().parent.parent
WITH_WORDS = {
    "presets": (presets.main, presets),
    "precisions": (lambda words: presets.main(words, precisions.PRECISIONS), precisions),
    "demo": (demo.main, demo),
    "claims": (claims.main, claims),
}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["WEIGHTS=embedded", "--help"]])
@pytest.mark.parametrize("name", WITH_WORDS)
def test_scripts_with_words_print_their_docstring(name, words, capsys):
    main, module = WITH_WORDS[name]
    assert main(words) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{module.__doc__.strip()}\n", "")
    assert f"python -m experiments.{name}" in said.out


def test_the_module_itself_ends_well():
    command = [sys.executable, "-m", "experiments.precisions", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{precisions.__doc__.strip()}\n"


def test_no_script_with_words_is_forgotten():
    """Those without argparse, but for the contenders, which bench.py starts."""
    found = set()
    for path in (ROOT / "experiments").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text and "argparse" not in text:
            found.add(path.parent.name if path.stem == "__main__" else path.stem)
    assert found - {"contenders"} == set(WITH_WORDS)
