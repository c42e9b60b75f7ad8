"""The cu112 wheel where there is no GPU: what it holds, what it loads. See ``make test-cu112``."""

import collections
import ctypes
import importlib.metadata
import logging
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fmi.device import environment as _environment
from fmi.device import mxnet as _mxnet
from fmi.device.driver import HIGHEST, LOWEST, driver
from fmi.errors import InputError

if _environment.installed_wheel() != "mxnet-cu112":
    pytest.skip("mxnet-cu112 is not installed: make test-cu112", allow_module_level=True)

PTX, CUBIN = 1, 2  # kinds of entry in a fat binary


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def section(data, wanted):
    """Offset and size of a section of an ELF file."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", data, table + index * size) for index in range(count)]
    for head in heads:
        begin = heads[names][4] + head[0]
        if data[begin : data.find(b"\0", begin)] == wanted:
            return head[4], head[5]
    raise AssertionError(f"there is no section {wanted}")


def kernels(path):
    """How many PTX texts and cubins a library has for each compute capability."""
    found = collections.Counter()
    with Path(path).open("rb") as stream, mmap.mmap(
        stream.fileno(), 0, access=mmap.ACCESS_READ
    ) as data:
        at, size = section(data, b".nv_fatbin")
        last = at + size
        while at < last - 16:
            magic, _, header, size = struct.unpack_from("<IHHQ", data, at)
            if magic != 0xBA55ED50:  # padding
                at += 8
                continue
            entry, at = at + header, at + header + size
            while entry < at:
                kind, _, header, size = struct.unpack_from("<HHIQ", data, entry)
                (capability,) = struct.unpack_from("<I", data, entry + 28)
                found[kind, capability] += 1
                entry += header + size
    return found


def test_the_compute_capabilities_that_mxnet_has_kernels_for():
    found = kernels(_mxnet.mx.libinfo.find_lib_path()[0])
    assert set(found) == {(CUBIN, capability) for capability in (50, 60, 70, 80, 86)}
    assert len(set(found.values())) == 1  # every kernel for every one
    assert (LOWEST, HIGHEST) == ((5, 0), (8, 9))


@pytest.mark.parametrize("name", ["ops_infer", "ops_train", "cnn_infer", "cnn_train"])
def test_the_compute_capabilities_that_cudnn_has_kernels_for(name):
    path = Path(loaded()["libcudnn.so.8"]).with_name(f"libcudnn_{name}.so.8")
    cubins = {capability for kind, capability in kernels(path) if kind == CUBIN}
    assert {50, 60, 61, 70, 75, 80, 86} <= cubins


def loaded():
    return {library.name: library.path for library in _environment.load_cuda_libraries()}


def test_all_libraries_come_from_pip_and_the_log_tells_which(caplog):
    caplog.set_level(logging.DEBUG)
    libraries = _environment.load_cuda_libraries()
    assert [library.name for library in libraries] == list(_environment.CUDA_LIBRARIES.values())
    for package, library in zip(_environment.CUDA_LIBRARIES, libraries):
        assert Path(library.path).parts[-4:-1] == ("nvidia", package, "lib")
        wheel = f"nvidia-{package.replace('_', '-')}-cu11"
        assert library.version == importlib.metadata.version(wheel)
        assert f"{library.name} loaded from {library.path}" in caplog.messages


def test_mxnet_has_loaded_these_files_and_no_others():
    maps = Path("/proc/self/maps").read_text()
    for name, path in loaded().items():
        files = {line.split()[-1] for line in maps.splitlines() if f"/{name}" in line}
        assert files == {path}


@pytest.mark.parametrize("part", ["OpsInfer", "OpsTrain", "CnnInfer", "CnnTrain"])
def test_cudnn_finds_its_own_parts(part):
    cudnn = ctypes.CDLL("libcudnn.so.8")
    assert getattr(cudnn, f"cudnn{part}VersionCheck")() == 0


def test_mxnet_is_built_for_cuda():
    features = _mxnet.mx.runtime.Features()
    assert features.is_enabled("CUDA")
    assert features.is_enabled("CUDNN")


def test_without_a_gpu_the_cpu_is_used_and_a_gpu_refused():
    if driver().gpus:
        pytest.skip("there is a GPU")
    assert _mxnet.mx.context.num_gpus() == 0
    assert str(_mxnet.context()) == "cpu(0)"
    with pytest.raises(InputError) as error:
        _mxnet.context("gpu")
    assert driver().problem() in str(error.value)


def test_without_a_driver_the_import_says_so_in_one_line():
    """Without the folder of the stub, that is, on a machine that has no driver."""
    done = run("from fmi.device.driver import driver; print(driver().path)", LD_LIBRARY_PATH="")
    if done.stdout.strip():
        pytest.skip("there is a driver")
    done = run("import fmi.invert", LD_LIBRARY_PATH="")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "fmi.errors.SetupError: mxnet-cu112 cannot be loaded: there is no NVIDIA GPU and no driver"
        " (libcuda.so.1 is not found); or compute on the CPU: pip uninstall -y mxnet-cu112 && pip"
        " install 'mxnet==1.9.1'"
    )
