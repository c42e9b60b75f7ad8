"""Importing fmi where MXNet is missing, doubled, or beside NumPy 2; what import costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmi.device import environment as _environment
from fmi.device import mxnet as _mxnet
from fmi.errors import InputError, SetupError

ROOT = Path(__file__).resolve().parent.parent


def run(code, folder=None):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if folder:
        environment["PYTHONPATH"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )


HIDE = """
import importlib.metadata as metadata
real = metadata.distribution
def distribution(name):
    if name in ("mxnet", "mxnet-cu112"):
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return None
    return real(name)
metadata.distribution = distribution
"""


def test_without_mxnet_the_two_pip_commands_are_named():
    done = run(f"INSTALLED = []{HIDE}\nimport fmi.invert")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "fmi.errors.SetupError: MXNet is not installed: pip install 'mxnet==1.9.1' (CPU)"
        f" or {_environment.pip_install('cu112')} (NVIDIA GPU)"
    )


def test_command_line_without_mxnet_is_one_line_and_status_2(tmp_path):
    call = f"cli.main(['draw', '{tmp_path}/fig3.yaml'])"
    done = run(f"INSTALLED = []{HIDE}\nfrom fmi import cli\nraise SystemExit({call})")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "fmi: MXNet is not installed: pip install 'mxnet==1.9.1' (CPU)"
        f" or {_environment.pip_install('cu112')} (NVIDIA GPU)"
    ]


def test_both_wheels():
    done = run(f"INSTALLED = ['mxnet', 'mxnet-cu112']{HIDE}\nimport fmi.invert")
    assert "mxnet and mxnet-cu112 are both installed and overwrite each other" in done.stderr
    assert "pip uninstall -y mxnet mxnet-cu112" in done.stderr


def test_numpy_2(monkeypatch):
    monkeypatch.setattr(_mxnet.np, "__version__", "2.1.3")
    with pytest.raises(SetupError) as error:
        _mxnet._mend_numpy()
    text = str(error.value)
    assert text.startswith("NumPy 2.1.3 ") and text.endswith("pip install 'numpy<2'")


def test_python_without_distutils(monkeypatch):
    monkeypatch.setattr(_environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install setuptools"):
        _environment.check_distutils()


def test_import_fmi_alone_imports_nothing():
    done = run("import sys, fmi; print('mxnet' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout.strip() == "False False"


def test_import_invert_leaves_slow_libraries_alone():
    done = run("import sys, fmi.invert; print({'skimage', 'matplotlib'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_a_gpu_that_is_not_there():
    with pytest.raises(InputError, match="ctx='cpu'"):
        _mxnet.context("gpu(99)")


def test_context():
    assert str(_mxnet.context("cpu")) == "cpu(0)"
    assert _mxnet.context(_mxnet.mx.cpu()) == _mxnet.mx.cpu()
    with pytest.raises(InputError, match="unknown device 'cuda'"):
        _mxnet.context("cuda")


def test_free_memory_is_the_control_groups_where_that_is_less(tmp_path):
    assert _environment.free_main_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert _environment.free_main_memory(tmp_path) == 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert _environment.free_main_memory(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("51000\n")
    assert _environment.free_main_memory(tmp_path) == 50000
    (group / "memory.current").write_text("60000\n")
    assert _environment.free_main_memory(tmp_path) == 0


def test_two_threads_of_one_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert _environment.cores(tmp_path) == 4  # nothing is told
    for cpu, siblings in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (5, "4-5")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert _environment.cores(tmp_path) == 3


@pytest.mark.parametrize("asked, expected", [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_waiting_threads_leave_the_cores_to_others_unless_asked(asked, expected, monkeypatch):
    monkeypatch.setenv("OMP_DISPLAY_ENV", "TRUE")  # libgomp tells what it was given
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    done = run("import fmi.device.mxnet, os; print(os.environ.get('OMP_WAIT_POLICY'))")
    assert done.returncode == 0
    assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr
    assert done.stdout.strip() == str(asked)


def test_mxnet_computes_on_every_core_and_leaves_no_variable_behind(monkeypatch):
    code = (
        "import ctypes, os, fmi.device.mxnet as m;"
        "x = m.mx.nd.ones((1, 16, 64, 64)); w = m.mx.nd.ones((16, 16, 3, 3));"
        "m.mx.nd.Convolution(x, w, no_bias=True, kernel=(3, 3), num_filter=16).wait_to_read();"
        "threads = ctypes.CDLL('libgomp.so.1').omp_get_max_threads();"
        "print(threads, 'OMP_NUM_THREADS' in os.environ)"
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for asked, expected in ((None, str(_environment.cores())), ("1", "1")):
        if asked:
            monkeypatch.setenv("OMP_NUM_THREADS", asked)
        done = run(code)
        assert done.returncode == 0
        assert done.stdout.split() == [expected, str(bool(asked))]


def test_an_installed_package_has_the_figures(tmp_path):
    """What ``pip install`` copies, without the rest of a checkout."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build", f"--build-base={tmp_path}/base"]
    command += [f"--build-lib={tmp_path}/lib", "egg_info", f"--egg-base={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for figure in ("fig1", "fig2", "fig3", "fig4", "fig5"):
        copied = tmp_path / f"lib/fmi/runs/{figure}.yaml"
        assert not copied.is_symlink()
        assert copied.read_text() == (ROOT / f"experiments/{figure}.yaml").read_text()
    words = [sys.executable, "-m", "fmi", "figure", "fig2", "PICTURES=skimage:coffee"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}/lib"}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/fig2/fig2.png").is_file()
