"""GPUs that are not here: fakes for every case in which one cannot be used, and the words for it.

The driver is faked by a libcuda.so.1 that gcc makes from ``fake_cuda.c``; MXNet's trial of a GPU by
what its process would have answered.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fmi.invert
import fmi.networks.vgg
from fmi.device import driver as _driver
from fmi.device import environment as _environment
from fmi.device import gpus as _gpu
from fmi.device import mxnet as _mxnet
from fmi.device import trial as _trial
from fmi.device.driver import Driver, Gpu
from fmi.errors import InputError, SetupError

ROOT = Path(__file__).resolve().parent.parent
A10 = Gpu(0, "NVIDIA A10", (8, 6), 24 << 30)
TO_CPU = "pip uninstall -y mxnet-cu112 && pip install 'mxnet==1.9.1'"
TO_CU112 = f"pip uninstall -y mxnet && pip install -e '{ROOT}[cu112]'"
UPDATE = "sudo ubuntu-drivers install (Ubuntu), or https://www.nvidia.com/drivers"
HERE = {"path": "/usr/lib/libcuda.so.1", "version": "535.129.03", "cuda": 12020}


@pytest.fixture
def machine(monkeypatch):
    """Pretend another driver, wheel, and outcome of trials."""

    def pretend(driver, wheel="mxnet-cu112", status=0, answer="", said=""):
        def run(command, **options):
            pretend.trials.append(command)
            return subprocess.CompletedProcess(command, status, answer, said)

        pretend.trials = []
        for module in (_gpu, _mxnet):
            monkeypatch.setattr(module, "driver", lambda: driver)
        monkeypatch.setattr(_environment, "installed_wheel", lambda: wheel)
        monkeypatch.setattr(_gpu.subprocess, "run", run)
        return pretend

    def forget():
        _gpu.trial.cache_clear()
        _mxnet._best_context.cache_clear()

    monkeypatch.delenv("FMI_CTX", raising=False)
    forget()
    yield pretend
    monkeypatch.undo()
    forget()


def passed(off=1e-6, right=True):
    return json.dumps({"free": 20 << 30, "total": 24 << 30, "difference": off, "right": right})


# --- the driver, through its own interface ---


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc makes the driver's stand-in, and is not installed")
    return {name: build(tmp_path_factory, name) for name in ("fake_cuda", "stub_cuda")}


def build(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp(name)
    flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1"]
    subprocess.run(["gcc", *flags, ROOT / f"tests/{name}.c"], check=True)
    return folder


def ask(folder, *flags, **told):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), **told}
    command = [sys.executable, "-I", _driver.__file__, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip() if flags else _driver.read(json.loads(done.stdout))


def test_the_driver_is_asked_for_its_gpus(fake_cuda):
    folder = fake_cuda["fake_cuda"]
    found = ask(folder, FAKE_COUNT="3", FAKE_MINOR="8")
    assert found.path == str(folder / "libcuda.so.1")
    assert (found.cuda, found.status, found.problem()) == (11040, 0, "")
    assert found.gpus[0] == Gpu(0, "Fake 0", (8, 8), 24 << 30)
    assert [str(gpu) for gpu in found.gpus[1:]] == [
        "Fake 1, compute capability 8.9",
        "Fake 2, compute capability 8.10",
    ]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"FAKE_CUDA": "10020"},
            f"(CUDA 10.2) is older than 450.80.02, which CUDA 11 needs: {UPDATE}",
        ),
        ({"FAKE_INIT": "100"}, "no GPU: unset CUDA_VISIBLE_DEVICES"),
        ({"FAKE_COUNT": "0"}, "no GPU: unset CUDA_VISIBLE_DEVICES"),
        ({"FAKE_INIT": "34"}, "libcuda.so.1 is a stub, not a driver"),
        ({"FAKE_INIT": "3"}, "does not start (system not yet initialized): restart the machine"),
    ],
)
def test_what_the_driver_says_in_words(fake_cuda, told, words):
    found = ask(fake_cuda["fake_cuda"], **told)
    assert words in found.problem()
    assert "\n" not in found.problem()


def test_a_library_without_cuinit_is_a_stub(fake_cuda):
    found = ask(fake_cuda["stub_cuda"])
    assert found.stub
    assert found.problem().startswith(f"{fake_cuda['stub_cuda']}/libcuda.so.1 is a stub")
    assert "LD_LIBRARY_PATH" in found.problem() and found.problem().endswith(UPDATE)


@pytest.mark.parametrize(
    ("told", "wheel"),
    [
        ({}, "cu112"),
        ({"FAKE_MAJOR": "5", "FAKE_MINOR": "0"}, "cu112"),
        ({"FAKE_MAJOR": "3", "FAKE_MINOR": "7"}, "cpu"),
        ({"FAKE_MAJOR": "9", "FAKE_MINOR": "0"}, "cpu"),
        ({"FAKE_MAJOR": "12", "FAKE_MINOR": "0"}, "cpu"),
        ({"FAKE_CUDA": "10020"}, "cpu"),
        ({"FAKE_COUNT": "0"}, "cpu"),
    ],
)
def test_the_wheel_that_make_installs(fake_cuda, told, wheel):
    assert ask(fake_cuda["fake_cuda"], "--wheel", **told) == wheel


def test_a_gpu_beside_the_cpu_wheel_is_said_even_if_nobody_listens(fake_cuda):
    if _environment.installed_wheel() != "mxnet":
        pytest.skip("the CPU wheel is not installed")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(fake_cuda["fake_cuda"]), "FMI_CTX": ""}
    done = subprocess.run(
        [sys.executable, "-c", "from fmi.device import mxnet; print(mxnet.context())"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "cpu(0)\n"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("computing on the CPU: Fake 0, compute capability 8.6")
    assert "CPU wheel" in last and last.endswith(TO_CU112)


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (
            Driver(),
            ("no NVIDIA GPU and no driver", "libcuda.so.1"),
        ),
        (
            Driver(hardware=True),
            ("NVIDIA GPU has no driver", "libcuda.so.1", "--gpus all", UPDATE),
        ),
        (
            Driver(path="libcuda.so.1", version="450.51.06", cuda=11000, gpus=(A10,)),
            ("450.51.06, CUDA 11.0", "450.80.02", UPDATE),
        ),
        (Driver(path="libcuda.so.1", version="450.80.02", cuda=11000, gpus=(A10,)), ()),
        (Driver(**HERE, gpus=(A10,)), ()),
    ],
)
def test_drivers(driver, words):
    assert bool(driver.problem()) == bool(words) and "\n" not in driver.problem()
    assert all(word in driver.problem() for word in words)


def test_a_driver_that_breaks_down_when_asked(monkeypatch):
    gone = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(_driver.subprocess, "run", lambda *a, **k: gone)
    _driver.driver.cache_clear()
    try:
        assert "does not start (it ended with status -11)" in _driver.driver().problem()
    finally:
        _driver.driver.cache_clear()


# --- the wheel cannot be loaded ---


@pytest.mark.parametrize(
    ("error", "driver", "words"),
    [
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            Driver(),
            ("mxnet-cu112 cannot be loaded: ", "libcuda.so.1", TO_CPU),
        ),
        (
            "libmxnet.so: undefined symbol: cuGraphKernelNodeGetParams",
            Driver(path="libcuda.so.1", version="390.157", cuda=9010),
            ("mxnet-cu112 cannot be loaded: ", "390.157", "450.80.02", UPDATE, TO_CPU),
        ),
        (
            "libmxnet.so: undefined symbol: cuGraphKernelNodeGetParams",
            Driver(**HERE, gpus=(A10,)),
            (
                "mxnet-cu112 cannot be loaded: ",
                "(libmxnet.so: undefined symbol: cuGraphKernelNodeGetParams)",
                UPDATE,
                TO_CPU,
            ),
        ),
        (
            "libcudnn.so.8: cannot open shared object file: No such file or directory",
            Driver(**HERE, gpus=(A10,)),
            (
                "mxnet-cu112 cannot be loaded: libcudnn.so.8 is missing",
                f"pip install -e '{ROOT}[cu112]'",
            ),
        ),
        (
            "libgomp.so.1: cannot open shared object file",
            Driver(**HERE, gpus=(A10,)),
            (
                "mxnet-cu112 cannot be loaded (libgomp.so.1: cannot open shared object file)",
                f"pip install -e '{ROOT}[cu112]' --force-reinstall",
            ),
        ),
    ],
)
def test_why_the_cu112_wheel_cannot_be_loaded(error, driver, words):
    found = _environment.import_problem("mxnet-cu112", error, driver)
    assert all(word in found for word in words) and "\n" not in found


def test_both_wheels(monkeypatch):
    monkeypatch.setattr(_environment.importlib.metadata, "distribution", lambda name: name)
    with pytest.raises(SetupError) as error:
        _environment.installed_wheel()
    assert str(error.value) == (
        "mxnet and mxnet-cu112 are both installed and overwrite each other: pip uninstall -y mxnet"
        " mxnet-cu112 && pip install 'mxnet==1.9.1' (CPU) or"
        f" pip install -e '{ROOT}[cu112]' (NVIDIA GPU)"
    )


# --- the trial of a GPU ---


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (
            1,
            "mxnet.base.MXNetError: cudaMalloc retry failed: out of memory",
            ("in use", "(out of memory)", "nvidia-smi", "export FMI_CTX='gpu(1)'"),
        ),
        (
            1,
            "MXNetError: CUDA: all CUDA-capable devices are busy or unavailable",
            ("in use", "(busy or unavailable)", "nvidia-smi", "export FMI_CTX='gpu(1)'"),
        ),
        (
            -6,
            "CUDA: no kernel image is available for execution on the device",
            ("mxnet-cu112 has no kernels", "export FMI_CTX=cpu"),
        ),
        (
            -11,
            "",
            ("small convolution", "signal 11", "fmi --verbose doctor"),
        ),
    ],
)
def test_trials_that_fail(machine, status, said, words):
    machine(Driver(**HERE, gpus=(A10,)), status=status, said=said)
    problem = _gpu.problem(0)
    assert "gpu(0) NVIDIA A10, compute capability 8.6" in problem and "\n" not in problem
    assert all(word in problem for word in words)
    with pytest.raises(InputError) as error:
        _mxnet.context("gpu")
    text = str(error.value)
    assert text.startswith("ctx='gpu(0)' ") and problem in text and "ctx='cpu'" in text


def test_a_gpu_that_computes_wrongly(machine):
    machine(Driver(**HERE, gpus=(A10,)), answer=passed(0.3, right=False))
    problem = _gpu.problem(0)
    assert problem.startswith("gpu(0) NVIDIA A10, compute capability 8.6 ")
    assert "0.3 from the CPU" in problem and "update the driver" in problem
    assert problem.endswith("export FMI_CTX=cpu")


def test_a_gpu_that_gives_no_answer(machine, monkeypatch):
    machine(Driver(**HERE, gpus=(A10,)))

    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(_gpu.subprocess, "run", run)
    assert "300 s" in _gpu.problem(0) and "nvidia-smi" in _gpu.problem(0)


def test_a_gpu_is_tried_once(machine):
    machine(Driver(**HERE, gpus=(A10,)), answer=passed())
    assert [_gpu.problem(0), _gpu.problem(0)] == ["", ""]
    assert len(machine.trials) == 1


def test_what_a_trial_computes(machine):
    cpu = _mxnet.mx.cpu()
    wanted = _trial.convolve(cpu)
    assert _trial.difference(_trial.convolve(cpu), wanted) == 0
    assert _trial.difference([wanted[0] * 1.02, wanted[1]], wanted) == pytest.approx(0.02, 1e-3)
    assert _trial.difference([wanted[0], wanted[1] * np.nan], wanted) > _trial.TOLERANCE
    assert np.abs(wanted[1]).max() > 1


def test_the_trial_of_a_gpu_that_is_not_there_fails_in_its_own_process():
    if _driver.driver().gpus:
        pytest.skip("there is a GPU")
    command = [sys.executable, "-c", _gpu.TRIAL.format(root=str(ROOT), index=0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "MXNetError" in done.stderr


# --- the choice ---


def test_the_first_gpu_that_passes_is_taken(machine, caplog):
    caplog.set_level(logging.INFO)
    old = Gpu(0, "Tesla K80", (3, 7), 12 << 30)
    second = Gpu(1, "NVIDIA A10", (8, 6), 24 << 30)
    machine(Driver(**HERE, gpus=(old, second)), answer=passed())
    assert str(_mxnet.context()) == "gpu(1)"
    assert caplog.messages == ["computing on gpu(1): NVIDIA A10, compute capability 8.6"]
    assert _mxnet.device_name(_mxnet.context()) == "NVIDIA A10, compute capability 8.6"
    assert len(machine.trials) == 1  # the first is not even tried: its capability tells


def test_no_gpu_that_the_wheel_serves(machine, caplog):
    newest = Gpu(0, "NVIDIA H100", (9, 0), 80 << 30)
    machine(Driver(**HERE, gpus=(newest,)))
    assert str(_mxnet.context()) == "cpu(0)"
    (message,) = caplog.messages
    assert message.startswith("computing on the CPU: gpu(0) NVIDIA H100, compute capability 9.0")
    assert "kernels for 5.0 to 8.9" in message and message.endswith("export FMI_CTX=cpu")
    assert not machine.trials


@pytest.mark.parametrize(
    ("wheel", "level"), [("mxnet", logging.INFO), ("mxnet-cu112", logging.WARNING)]
)
def test_without_a_gpu_only_who_expects_one_is_warned(machine, caplog, wheel, level):
    caplog.set_level(logging.INFO)
    machine(Driver(), wheel=wheel)
    assert str(_mxnet.context()) == "cpu(0)"
    ((name, found, message),) = caplog.record_tuples
    assert (name, found) == ("fmi.device.mxnet", level)
    assert message == f"computing on the CPU: {Driver().problem()}"


def test_the_environment_chooses(machine, monkeypatch):
    machine(Driver(**HERE, gpus=(A10, Gpu(1, "NVIDIA A10", (8, 6), 24 << 30))), answer=passed())
    assert str(_mxnet.context()) == "gpu(0)"
    monkeypatch.setenv("FMI_CTX", "gpu(1)")
    assert str(_mxnet.context()) == "gpu(1)"
    assert str(_mxnet.context("gpu(0)")) == "gpu(0)"
    monkeypatch.setenv("FMI_CTX", "gpu(2)")
    with pytest.raises(InputError) as error:
        _mxnet.context()
    text = str(error.value)
    assert text.startswith("FMI_CTX='gpu(2)' ") and "there is no gpu(2)" in text
    assert text.endswith("FMI_CTX='cpu'")
    monkeypatch.setenv("FMI_CTX", "cuda")
    with pytest.raises(InputError, match="unknown device 'cuda' in FMI_CTX"):
        _mxnet.context()
    monkeypatch.setenv("FMI_CTX", "cpu")
    assert str(_mxnet.context()) == "cpu(0)"


# --- memory ---


GPU_SAYS = "Traceback:\n pooled_storage_manager.h, line 161\ncudaMalloc retry failed: out of memory"


def small(small_weights, picture, **options):
    return fmi.invert.feature_map(
        picture,
        "relu2_1",
        [0, 1, 2, 3, 4],
        weights=small_weights,
        ctx="cpu",
        steps=3,
        stop=0,
        progress=False,
        **options,
    )


def fits(monkeypatch, most, message=GPU_SAYS):
    """A device on which no more than `most` pictures fit; the batches that were tried."""
    tried = []
    minimise = fmi.call.descent.minimise

    def limited(network, loss, *rest):
        tried.append(loss.pictures)
        if loss.pictures > most:
            raise _mxnet.mx.MXNetError(message)
        return minimise(network, loss, *rest)

    monkeypatch.setattr(fmi.call.descent, "minimise", limited)
    return tried


def test_out_of_memory_halves_the_batch_and_says_so(small_weights, picture, monkeypatch, caplog):
    wanted = small(small_weights, picture)
    tried = fits(monkeypatch, 1)
    freed = []
    free = fmi.networks.vgg.TruncatedVGG.free
    monkeypatch.setattr(
        fmi.networks.vgg.TruncatedVGG, "free", lambda self: (freed.append(len(tried)), free(self))
    )
    found = small(small_weights, picture)
    assert tried == [5, 2, 1, 1, 1, 1, 1]
    assert sorted(set(freed)) == [1, 2, 3, 4, 5, 6, 7]  # after each batch, those that failed too
    for message, (failed, next_) in zip(caplog.messages[-2:], [(5, 2), (2, 1)]):
        assert "cpu(0) is out of memory" in message
        assert [int(n) for n in re.findall(r" (\d+)", message)] == [failed, next_]
    for one, other in zip(found, wanted):
        np.testing.assert_array_equal(one.array, other.array)
        assert one.settings == other.settings


def test_out_of_memory_in_the_middle(small_weights, picture, monkeypatch):
    tried = fits(monkeypatch, 2)
    found = small(small_weights, picture, batch=3)
    assert tried == [3, 1, 1, 1, 1, 1]
    assert [one.settings["filter"] for one in found] == [0, 1, 2, 3, 4]


def test_not_even_one_picture_fits(small_weights, picture, monkeypatch):
    tried = fits(monkeypatch, 0)
    with pytest.raises(InputError) as error:
        small(small_weights, picture)
    assert tried == [5, 2, 1]
    text = str(error.value)
    assert "out of memory" in text and "one picture" in text
    assert all(word in text for word in ("long_edge", "nvidia-smi", "ctx='cpu'"))


def test_without_main_memory_there_is_no_going_on(small_weights, picture, monkeypatch):
    tried = fits(monkeypatch, 4, "MXNetError: Failed to allocate CPU Memory")
    with pytest.raises(InputError) as error:
        small(small_weights, picture)
    assert tried == [5]
    assert all(word in str(error.value) for word in ("memory", "new process", "long_edge", "batch"))


def test_other_errors_of_mxnet_are_not_taken_for_want_of_memory(
    small_weights, picture, monkeypatch
):
    tried = fits(monkeypatch, 0, "CUDA: an illegal memory access was encountered")
    with pytest.raises(_mxnet.mx.MXNetError, match="illegal memory access"):
        small(small_weights, picture)
    assert tried == [5]


def test_the_device_is_recorded(small_weights, picture):
    record = small(small_weights, picture)[0].settings
    assert (record["device"], record["device_name"]) == ("cpu(0)", "")
