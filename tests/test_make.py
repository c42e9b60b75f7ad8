"""The Makefile hands its variables to fmi, whose message and status come through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
VENV = os.path.relpath(sys.prefix, HERE)  # make cannot take a folder's name with a space


def make(*words):
    if not (Path(sys.prefix) / "bin/fmi").exists():
        pytest.skip("fmi is not installed in a virtual environment")
    command = ["make", "--no-print-directory", f"VENV={VENV}", "-o", f"{VENV}/.ready", *words]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)


def test_figure_with_variables(picture_folder, tmp_path):
    done = make("fig2", f"PICTURES={picture_folder}", f"RESULTS={tmp_path}/with space")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "with space/fig2.png").is_file()


def test_unknown_variable():
    done = make("fig3", "LAYRES=relu1_2")
    assert done.returncode == 2
    assert "fmi: unknown variable 'LAYRES'; did you mean LAYERS" in done.stderr


def test_help_lists_every_word():
    words = make("help").stdout
    for word in ("fig1 ... fig5", "demo", "test", "lint", "clean", "models", "pictures", "bench"):
        assert f"\n{word} " in "\n" + words


def test_bench_hands_its_words_on():
    done = make("-o", f"{VENV}/.bench", "bench", "BENCH=--rounds 0")
    assert done.returncode == 2
    assert "argument --rounds: '0' should be" in done.stderr


def test_bench_goes_on_without_pytorch(tmp_path):
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\ncase "$*" in *pip*) exit 1;; *) echo "ran $*";; esac\n')
    python.chmod(0o755)
    ready = f"{tmp_path}/.ready"
    command = ["make", "--no-print-directory", f"VENV={tmp_path}", "-o", ready]
    command += ["bench", "BENCH=--quick"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "PyTorch cannot be installed\n")
    assert done.stdout.endswith("ran -m experiments.bench --quick\n")


def test_unknown_wheel():
    command = ["make", f"VENV={VENV}", "MXNET=rocm", "-W", "setup.py", f"{VENV}/.ready"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MXNET=rocm should be cpu or cu112" in done.stderr
