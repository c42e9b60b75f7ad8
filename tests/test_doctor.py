"""fmi doctor: what it says where all is well, and where MXNet cannot even be imported."""

import ctypes
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fmi import doctor
from fmi.device import environment as _environment
from fmi.device import gpus as _gpu
from fmi.device import mxnet as _mxnet
from fmi.device.driver import Driver, Gpu
from fmi.device.environment import Library
from fmi.sources import table

A10 = Gpu(0, "NVIDIA A10", (8, 6), 24 << 30)
DRIVER = Driver(path="/usr/lib/libcuda.so.1", version="535.129.03", cuda=12020, gpus=(A10,))
HERE = {"wheel": "mxnet-cu112", "version": "1.9.1", "error": "", "amx": False}


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fmi", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FMI_CTX": "", **environment},
    )


@pytest.fixture
def pretend(monkeypatch):
    def set_up(driver=DRIVER, mxnet=HERE, numpy=np.__version__, libraries=(), trial=None):
        for module in (doctor, _gpu):
            monkeypatch.setattr(module, "driver", lambda: driver)
        monkeypatch.setattr(_environment, "installed_wheel", lambda: mxnet["wheel"])
        monkeypatch.setattr(doctor, "_mxnet", lambda: dict(mxnet))
        versions = {"numpy": numpy}
        monkeypatch.setattr(doctor, "_version", lambda package: versions[package])
        monkeypatch.setattr(_environment, "load_cuda_libraries", lambda: list(libraries))
        monkeypatch.setattr(_environment, "shared_with_cuda_12", list)
        monkeypatch.setattr(_gpu, "trial", lambda index: trial or _gpu.Trial(free=1, total=2))
        return doctor.examine()

    monkeypatch.delenv("FMI_CTX", raising=False)
    return set_up


def about(report, *words):
    return [line for line in report["advice"] if any(word in line for word in words)]


def test_here():
    done = run("--json", FMI_CTX="cpu")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["numpy"] == np.__version__
    assert report["mxnet"] == {
        "wheel": _environment.installed_wheel(),
        "version": importlib.metadata.version(_environment.installed_wheel()),
        "error": "",
    }
    assert report["amx"] == {"cpu": _environment.has_amx(), "used": _mxnet.AMX}
    assert report["device"] == "cpu(0)"
    assert 0 < report["memory"]["available"] < report["memory"]["total"]
    assert [library["name"] for library in report["libraries"]] == list(
        _environment.CUDA_LIBRARIES.values()
    )


def test_the_text_has_a_line_for_everything(pretend):
    library = Library("libcudnn.so.8", "/x/libcudnn.so.8", "8.9.6.50")
    report = pretend(libraries=[library, Library("libnccl.so.2", error="not found")])
    lines = doctor.text(report).splitlines()
    for line in [
        "mxnet      mxnet-cu112 1.9.1",
        "driver     535.129.03, CUDA 12.2, /usr/lib/libcuda.so.1",
        "cuda       1 of 2 libraries",
        "           libcudnn.so.8: 8.9.6.50, /x/libcudnn.so.8",
        "           libnccl.so.2: missing",
        "gpu(0)     NVIDIA A10, compute capability 8.6, 25.8 GB: supported by mxnet-cu112, works",
        "device     gpu(0)",
    ]:
        assert line in lines
    assert about(report, "libnccl.so.2") == [
        "CUDA libraries are missing (libnccl.so.2): " + _environment.pip_install("cu112")
    ]


def test_pictures_and_weights_that_are_missing_come_with_the_command(
    pretend, monkeypatch, tmp_path
):
    monkeypatch.setattr(table, "folders", lambda kind: [tmp_path])
    report = pretend()
    assert {entry["state"] for entry in report["weights"] + report["pictures"]} == {"missing"}
    advice = about(report, "fetch")
    assert "VGG-19" in advice[0] and "missing: fmi weights fetch vgg19" in advice[0]
    assert "pictures" in advice[1] and "missing: fmi pictures fetch golden_gate" in advice[1]
    lines = doctor.text(report).splitlines()
    assert [line for line in lines if line.startswith("weights")] == [
        "weights    vgg19: missing",
        "weights    embedded: ok",
    ]
    (spare,) = [line for line in lines if "can be fetched" in line]
    assert "vgg16-hed" in spare and "vgg19-keras" in spare and "vgg19," not in spare
    (tmp_path / "vgg19.params").write_bytes(b"something else")
    (tmp_path / "vgg19_of_mine.npz").write_bytes(b"")
    report = pretend()
    states = {entry["name"]: entry["state"] for entry in report["weights"]}
    assert (states["vgg19"], states["vgg19_of_mine.npz"]) == ("wrong digest", "unknown digest")
    assert "missing" not in [
        line.split()[-1] for line in doctor.text(report).splitlines() if "weights" in line
    ]
    (line,) = about(report, "digest of vgg19:")
    assert line.startswith(f"{tmp_path}/vgg19.params ")
    assert line.endswith("remove it, then fmi weights fetch vgg19")


def test_a_gpu_in_use_by_others(pretend):
    report = pretend(trial=_gpu.Trial("gpu(0) NVIDIA A10 is in use by others"))
    assert report["device"] == "cpu(0)"
    assert "gpu(0) NVIDIA A10 is in use by others" in report["advice"]


def test_a_gpu_without_kernels(pretend):
    newest = Gpu(0, "NVIDIA H100", (9, 0), 80 << 30)
    report = pretend(Driver(path="libcuda.so.1", cuda=12020, gpus=(newest,)))
    line = "compute capability 9.0, 85.9 GB: not supported by mxnet-cu112, not used"
    assert line in doctor.text(report)
    assert len(about(report, "has kernels for 5.0 to 8.9")) == 1


def test_a_driver_too_old(pretend):
    report = pretend(Driver(path="libcuda.so.1", version="440.33.01", cuda=10020, gpus=(A10,)))
    assert report["device"] == "cpu(0)"
    assert len(about(report, "(440.33.01, CUDA 10.2) is older than 450.80.02")) == 1


def test_the_device_that_the_environment_chooses(pretend, monkeypatch):
    monkeypatch.setenv("FMI_CTX", "gpu(1)")
    report = pretend()
    assert report["device"] is None
    (line,) = about(report, "FMI_CTX=gpu(1)")
    assert line.endswith("unset FMI_CTX")
    monkeypatch.setenv("FMI_CTX", "cpu")
    report = pretend()
    assert report["device"] == "cpu(0)"
    assert "device     cpu(0) (FMI_CTX=cpu)" in doctor.text(report)


def test_cuda_12_over_cuda_11(monkeypatch):
    class File:
        name = "libcurand.so.10"

    def files(name):
        if name == "nvidia-curand-cu12":
            return [File]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    advice = doctor._advice_on_libraries([])
    (line,) = advice
    assert line.startswith("nvidia-curand-cu12 (CUDA 12) ")
    assert line.endswith(
        "pip uninstall -y"
        f" nvidia-curand-cu12 && {_environment.pip_install('cu112')} --force-reinstall"
    )


# --- where MXNet cannot be imported: real environments, made of folders in front of the others ---


def metadata(folder, name, version):
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_beside_numpy_2(tmp_path):
    metadata(tmp_path, "numpy", "2.1.3")
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("__version__ = '2.1.3'\n")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "numpy      2.1.3" in done.stdout
    assert done.stdout.count("pip install 'numpy<2'") == 1
    (line,) = (line for line in done.stdout.splitlines() if "pip install 'numpy<2'" in line)
    assert line.startswith("- NumPy 2.1.3 ") and "MXNet 1.9.1 needs NumPy 1" in line


def test_beside_both_wheels(tmp_path):
    for wheel in ("mxnet", "mxnet-cu112"):
        metadata(tmp_path, wheel, "1.9.1")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("mxnet  "))
    assert line.endswith("two wheels, cannot be imported")
    assert "- mxnet and mxnet-cu112 are both installed and overwrite each other" in done.stdout


def test_an_mxnet_that_breaks_down(tmp_path):
    metadata(tmp_path, "mxnet", "1.9.1")
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet/__init__.py").write_text("raise AttributeError('half of it is gone')\n")
    if _environment.installed_wheel() != "mxnet":
        pytest.skip("the CPU wheel is not installed")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert (
        "- mxnet cannot be imported (AttributeError: half of it is gone):"
        " pip install 'mxnet==1.9.1' --force-reinstall" in done.stdout.splitlines()
    )


# --- the CUDA libraries ---


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Copies of some shared library, as a CUDA library of a name that no system has."""
    from numpy.random import bit_generator

    name = "libfmi_test.so.8"
    monkeypatch.setattr(_environment, "CUDA_LIBRARIES", {"cudnn": name})
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)

    def put(*folders, damaged=False):
        file = tmp_path.joinpath(*folders, name)
        file.parent.mkdir(parents=True)
        if damaged:
            file.write_bytes(b"\x7fELF and nothing")
            return file
        shutil.copy(bit_generator.__file__, file)
        ctypes.CDLL(str(file))  # or the test would tell nothing
        return file

    return put


def test_pips_library_goes_before_the_systems(library, monkeypatch, tmp_path, caplog):
    caplog.set_level("DEBUG")
    system = library("toolkit", "lib64")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert [found.path for found in _environment.load_cuda_libraries()] == [str(system)]
    pips = library("packages", "nvidia", "cudnn", "lib")
    metadata(tmp_path / "packages", "nvidia-cudnn-cu11", "8.9.6.50")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "packages")])
    caplog.clear()
    found = _environment.load_cuda_libraries()
    assert found == [Library("libfmi_test.so.8", str(pips), _installed("cudnn") or "8.9.6.50")]
    assert caplog.messages == [f"libfmi_test.so.8 loaded from {pips}"]


def _installed(package):
    """The version of a package that is really installed, which is found first."""
    others = [entry for entry in sys.path if "pytest-of" not in entry]
    found = importlib.metadata.distributions(name=f"nvidia-{package}-cu11", path=others)
    return next((distribution.version for distribution in found), "")


def test_the_users_own_packages(library, monkeypatch, tmp_path):
    pips = library("user", "nvidia", "cudnn", "lib")
    monkeypatch.setattr(_environment.site, "getusersitepackages", lambda: str(tmp_path / "user"))
    assert [found.path for found in _environment.load_cuda_libraries()] == [str(pips)]


def test_a_library_that_is_damaged_is_passed_over(library, monkeypatch, tmp_path):
    library("packages", "nvidia", "cudnn", "lib", damaged=True)
    system = library("toolkit", "lib64")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "packages")])
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "toolkit"))
    assert [found.path for found in _environment.load_cuda_libraries()] == [str(system)]


def test_a_library_that_is_nowhere(library):
    (found,) = _environment.load_cuda_libraries()
    assert (found.path, found.version) == ("", "")
    assert "cannot open shared object file" in found.error


def test_libraries_of_the_cpu_wheel_are_left_alone():
    if _environment.installed_wheel() != "mxnet":
        pytest.skip("the CPU wheel is not installed")
    code = "import fmi.device.mxnet; print(open('/proc/self/maps').read().count('libcud'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_import_costs_little_more_than_mxnets_own():
    """Counted in calls of Python functions, as seconds are the machine's."""
    if _environment.installed_wheel() != "mxnet":
        pytest.skip("mxnet-cu112 cannot be imported on its own")
    code = (
        "import sys, numpy; vars(numpy).setdefault('bool', bool); calls = [0]\n"
        "def count(frame, event, _): calls[-1] += event in ('call', 'c_call')\n"
        "sys.setprofile(count); import mxnet; calls.append(0)\n"
        "import fmi.invert; sys.setprofile(None); print(*calls)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    mxnets, own = (int(word) for word in done.stdout.split())
    assert 1000 < own < mxnets / 10
