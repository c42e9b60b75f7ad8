"""The Makefile hands its variables to fmi, whose message and status come through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
VENV = os.path.relpath(sys.prefix, HERE)  # make cannot take a folder's name with a space
# What `make test VENV=...` hands to the processes that it starts is not for the makes below.
HANDED_ON = (
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "VENV",
    "PYTHON",
    "MXNET",
    "BENCH",
)
USUAL = {name: value for name, value in os.environ.items() if name not in HANDED_ON}


def make(*words):
    if not (Path(sys.prefix) / "bin/fmi").exists():
        pytest.skip("fmi is not installed in a virtual environment")
    command = ["make", "--no-print-directory", f"VENV={VENV}", "-o", f"{VENV}/.ready", *words]
    return subprocess.run(command, cwd=HERE, env=USUAL, capture_output=True, text=True, check=False)


def test_figure_with_variables(picture_folder, tmp_path):
    done = make("fig2", f"PICTURES={picture_folder}", f"RESULTS={tmp_path}/with space")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "with space/fig2.png").is_file()


@pytest.fixture
def handed(tmp_path):
    """What make hands to fmi: the words of each of its commands."""
    program = tmp_path / "bin/fmi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" end\n')
    program.chmod(0o755)
    command = ["make", "--no-print-directory", f"VENV={tmp_path}", "-o", f"{tmp_path}/.ready"]

    def run(*words, **environment):
        done = subprocess.run(
            [*command, *words],
            cwd=HERE,
            env={**USUAL, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [part.split("\n") for part in done.stdout.rstrip("\n").split("\nend")]

    return run


@pytest.mark.parametrize(
    "name",
    [
        "a  b.jpg",
        "IMG (1).jpg",
        "Tom's.jpg",
        "a&b;c.jpg",
        "a$b$$(c).jpg",
        'a"b\\.jpg',
        "# *",
        "a=b",
    ],
)
def test_a_value_reaches_fmi_as_it_was_given(handed, name):
    (words, _) = handed("fig3", f"PICTURES={name}", "STEPS=3", "MXNET=cpu")
    assert words[:2] == ["draw", "experiments/fig3.yaml"]
    assert sorted(words[2:]) == [f"PICTURES={name}", "STEPS=3"]


def test_a_variable_without_a_value_reaches_fmi_too(handed):
    assert handed("fig3", "STEPS=")[0][2:] == ["STEPS="]


@pytest.mark.parametrize("key", ["RESULTS", "results"])
def test_the_pages_are_made_of_the_sweep_that_was_computed(handed, key):
    sweep, pages, _ = handed("atlas", f"{key}=my (own) dir", RESULTS="elsewhere")
    assert sweep == ["sweep", "experiments/atlas.yaml", f"{key}=my (own) dir"]
    assert pages[1:] == ["atlas", "my (own) dir"]
    sweep, pages, _ = handed("atlas", RESULTS="elsewhere")
    assert (sweep[2:], pages[1:]) == ([], ["atlas", "results/atlas"])


def test_unknown_variable():
    done = make("fig3", "LAYRES=relu1_2")
    assert done.returncode == 2
    assert "fmi: unknown variable 'LAYRES'; did you mean LAYERS" in done.stderr


def test_help_lists_every_word():
    words = make("help").stdout
    listed = ("fig1 ... fig5", "demo", "test", "lint", "clean", "models", "pictures", "bench")
    more = ("verify", "setup", "clean-results", "test-cu112", "test-lowest", "notebook")
    for word in (*listed, *more):
        assert f"\n{word} " in "\n" + words
    assert "another-wheel" not in words


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
    done = subprocess.run(command, cwd=HERE, env=USUAL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "PyTorch cannot be installed\n")
    assert done.stdout.endswith("ran -m experiments.bench --quick\n")


def test_notebook_installs_jupyterlab_once_and_opens_the_notebooks(project):
    done = project("notebook")
    assert done.returncode == 0, done.stderr
    assert any(line.endswith("-e .[notebook]") for line in done.commands)
    assert done.commands[-1] == "-m jupyterlab experiments/notebooks"
    assert project("notebook").commands == ["-m jupyterlab experiments/notebooks"]


def test_unknown_wheel():
    command = ["make", f"VENV={VENV}", "MXNET=rocm", "-W", "setup.py", f"{VENV}/.ready"]
    done = subprocess.run(command, cwd=HERE, env=USUAL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MXNET=rocm should be cpu or cu112" in done.stderr


# --- the environment and its wheel: a Python and a pip that only note what they are told ---

FAKE = """#!/bin/bash
echo "$*" >> {log}
cd {wheels}
case "$*" in
    "-m venv "*) mkdir -p "$OLDPWD/$3/bin" && cp "$OLDPWD/fake" "$OLDPWD/$3/bin/python";;
    *--wheel) echo "${{DETECTED:-cpu}}";;
    *"pip show --quiet "*) test -e "${{@: -1}}";;
    *"pip uninstall "*) rm -f "${{@: -2}}";;
    *"pip install "*-e*cu112*) test -z "$OFFLINE" && touch mxnet-cu112;;
    *"pip install "*-e*cpu*) test -z "$OFFLINE" && touch mxnet;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A folder to run the Makefile in; it returns the commands of Python, and make's outcome."""
    log, wheels = tmp_path / "log", tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "setup.py").write_text("")
    (tmp_path / "fake").write_text(FAKE.format(log=log, wheels=wheels))
    (tmp_path / "fake").chmod(0o755)

    def run(*words, **environment):
        log.write_text("")
        command = ["make", "--no-print-directory", "-f", str(HERE / "Makefile"), "PYTHON=./fake"]
        done = subprocess.run(
            [*command, *words],
            cwd=tmp_path,
            env={**USUAL, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        done.commands = log.read_text().splitlines()
        done.wheels = sorted(path.name for path in wheels.iterdir())
        done.detected = any("--wheel" in line for line in done.commands)
        return done

    run.folder = tmp_path
    run.wheels = wheels
    return run


def test_the_wheel_is_found_out_on_first_use_alone(project):
    done = project("setup", DETECTED="cu112")
    assert (done.returncode, done.wheels, done.detected) == (0, ["mxnet-cu112"], True), done.stderr
    assert sum("--wheel" in line for line in done.commands) == 1
    assert not any("uninstall" in line for line in done.commands)
    assert (project.folder / ".venv/.ready").read_text() == "cu112\n"
    assert project("setup", DETECTED="cpu").commands == []


def test_make_help_asks_for_no_wheel(project):
    assert project("help").commands == []


def test_another_wheel_takes_the_place_of_the_first(project):
    assert project("setup", "MXNET=cpu").wheels == ["mxnet"]
    assert project("setup", "MXNET=cpu").commands == []
    done = project("setup", "MXNET=cu112")
    assert (done.returncode, done.wheels, done.detected) == (0, ["mxnet-cu112"], False)
    (removed,) = (n for n, line in enumerate(done.commands) if "pip uninstall" in line)
    (installed,) = (n for n, line in enumerate(done.commands) if ".[cu112,dev]" in line)
    assert removed < installed and " -y " in done.commands[removed]
    assert project("setup").commands == []
    assert project("setup", MXNET="cpu").wheels == ["mxnet"]  # from the environment too


def test_a_new_setup_py_keeps_the_wheel(project):
    project("setup", "MXNET=cu112")
    done = project("setup", "-W", "setup.py", DETECTED="cpu")
    assert (done.wheels, done.detected) == (["mxnet-cu112"], False)
    assert any(".[cu112,dev]" in line for line in done.commands)


@pytest.mark.parametrize(
    ("there", "wheel"), [("mxnet_cu112-1.9.1.dist-info", "cu112"), ("", "cpu")]
)
def test_an_environment_of_before_keeps_its_wheel(project, there, wheel):
    """Its mark was empty."""
    project("setup", f"MXNET={wheel}")
    (project.folder / ".venv/lib/python3.11/site-packages" / there).mkdir(parents=True)
    (project.folder / ".venv/.ready").write_text("")
    assert project("setup", f"MXNET={wheel}").commands == []
    done = project("setup", "-W", "setup.py", DETECTED="cu112")
    assert (len(done.wheels), done.detected) == (1, False)
    assert (project.folder / ".venv/.ready").read_text() == f"{wheel}\n"


def test_two_wheels_are_both_replaced(project):
    """Each of them has overwritten files of the other."""
    project("setup", "MXNET=cpu")
    (project.wheels / "mxnet-cu112").touch()
    done = project("setup", "MXNET=cpu", "-W", "setup.py")
    (line,) = (line for line in done.commands if "uninstall" in line)
    assert line.split()[-2:] == ["mxnet", "mxnet-cu112"]
    assert done.wheels == ["mxnet"]


def test_the_wheel_that_another_package_has_brought_is_removed(project):
    project("setup", "MXNET=cpu")
    (project.wheels / "mxnet-cu112").touch()
    for name in ("mxnet-1.9.1", "mxnet_cu112-1.9.1"):
        folder = project.folder / ".venv/lib/python3.11/site-packages"
        (folder / f"{name}.dist-info").mkdir(parents=True)
    done = project("setup", "MXNET=cpu")
    assert any("pip uninstall" in line for line in done.commands) and done.wheels == ["mxnet"]


def test_a_wheel_that_cannot_be_installed_is_not_taken_for_ready(project):
    project("setup", "MXNET=cpu")
    failed = project("setup", "MXNET=cu112", OFFLINE="1")
    assert failed.returncode == 2 and failed.wheels == []
    done = project("setup", "MXNET=cu112")
    assert (done.returncode, done.wheels) == (0, ["mxnet-cu112"])


def test_a_wheel_that_does_not_exist_changes_nothing(project):
    project("setup", "MXNET=cpu")
    done = project("setup", "MXNET=rocm")
    assert done.returncode == 2 and "MXNET=rocm should be cpu or cu112" in done.stderr
    assert (done.wheels, done.commands) == (["mxnet"], [])
    assert project("setup").commands == []


def test_clean_keeps_results(project):
    project("setup", "MXNET=cpu")
    panel = project.folder / "results/fig3/panel.png"
    panel.parent.mkdir(parents=True)
    panel.touch()
    assert project("clean").returncode == 0
    assert panel.exists() and not (project.folder / ".venv").exists()
    done = project("clean-results")
    assert not panel.parent.parent.exists()
    (line,) = done.stdout.splitlines()
    assert f"{project.folder}/results" in line and "1 files" in line
    assert project("clean-results").returncode == 0
