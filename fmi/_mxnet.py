"""The one door to MXNet: every other module imports ``mx`` from here.

MXNet 1.9.1 is the project's last release; this module mends what has changed around it since
(NumPy's ``np.bool``, Python 3.12's missing ``distutils``), loads the CUDA libraries that pip
installs, and chooses the device.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, FrozenSet, Union

import numpy as np

from fmi.errors import InputError, SetupError, unknown

log = logging.getLogger(__name__)

INSTALL = "pip install 'mxnet==1.9.1' (CPU) or pip install 'mxnet-cu112==1.9.1' (NVIDIA GPU)"

# Package folder under site-packages/nvidia -> the library that MXNet's cu112 wheel links to.
CUDA_LIBRARIES = {
    "cuda_runtime": "libcudart.so.11.0",
    "cuda_nvrtc": "libnvrtc.so.11.2",
    "cublas": "libcublas.so.11",
    "cudnn": "libcudnn.so.8",
    "nccl": "libnccl.so.2",
    "cufft": "libcufft.so.10",
    "curand": "libcurand.so.10",
    "cusolver": "libcusolver.so.11",
    "nvtx": "libnvToolsExt.so.1",
}


def installed_wheel() -> str:
    """Name of the installed MXNet distribution, ``"mxnet"`` or ``"mxnet-cu112"``.

    Raises
    ------
    SetupError
        If there is none, or both: they install the same module over each other.
    """
    wheels = []
    for name in ("mxnet", "mxnet-cu112"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        wheels.append(name)
    if not wheels:
        raise SetupError(f"MXNet is not installed: {INSTALL}")
    if len(wheels) == 2:
        raise SetupError(
            "mxnet and mxnet-cu112 are both installed and overwrite each other:"
            " pip uninstall -y mxnet mxnet-cu112, then install one of them"
        )
    return wheels[0]


def _mend_numpy() -> None:
    """Give NumPy 1.24-1.26 back the alias ``np.bool``, which MXNet asks for at import."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise SetupError(
            f"NumPy {np.__version__} is installed, MXNet 1.9.1 needs NumPy 1: pip install 'numpy<2'"
        )
    vars(np).setdefault("bool", bool)  # not hasattr: it warns


def _check_distutils() -> None:
    """MXNet imports ``distutils``; on Python 3.12 and later setuptools provides it."""
    if importlib.util.find_spec("distutils") is None:
        raise SetupError("MXNet needs distutils, which this Python lacks: pip install setuptools")


def _load_cuda_libraries() -> None:
    """Load the CUDA libraries of pip's ``nvidia-*-cu11`` packages, so that MXNet finds them."""
    os.environ.setdefault("MXNET_USE_FUSION", "0")  # its run-time compiler is not needed
    os.environ.setdefault("MXNET_CUDNN_LIB_CHECKING", "0")  # a note about cuDNN's minor version
    folders = [Path(entry) / "nvidia" for entry in sys.path if entry]
    for package, library in CUDA_LIBRARIES.items():
        files = [folder / package / "lib" / library for folder in folders]
        found = next((str(file) for file in files if file.is_file()), library)
        try:
            ctypes.CDLL(found, mode=ctypes.RTLD_GLOBAL)
            log.debug("%s loaded from %s", library, found)
        except OSError as error:  # MXNet's own import tells which one it cannot do without
            log.debug("%s not loaded: %s", library, error)


def _cpu_flags() -> FrozenSet[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(next((x for x in text.splitlines() if x.startswith("flags")), "").split())


def _switch_on_amx() -> bool:
    """Let MXNet's convolutions in bfloat16 use the CPU's matrix unit (AMX), where it has one.

    oneDNN uses it only if ``DNNL_MAX_CPU_ISA`` says so before its first primitive, and the
    process is killed unless it has asked Linux for the tile registers before. The variable is
    taken back at once: a process started from here has not asked. ``FMI_AMX=0`` leaves AMX off.
    """
    variable = "DNNL_MAX_CPU_ISA"
    if os.environ.get("FMI_AMX") == "0" or variable in os.environ:
        return False
    if platform.machine() != "x86_64" or "amx_bf16" not in _cpu_flags():
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    if ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) != 0:
        return False
    os.environ[variable] = "AVX512_CORE_AMX"
    try:
        x = mx.nd.ones((1, 16, 4, 4))
        mx.nd.Convolution(x, x[:, :, :1, :1], no_bias=True, kernel=(1, 1), num_filter=1).asnumpy()
    finally:
        del os.environ[variable]
    return True


def compute_type(precision: str, ctx: Context) -> str:
    """The number format of the network, ``"float32"`` or ``"bfloat16"``.

    Parameters
    ----------
    precision
        ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where the CPU has AMX, which
        makes it about three times as fast, else float32; the choice is logged.
    ctx
        The device.

    Raises
    ------
    InputError
        For another word, or bfloat16 on a device that has none.
    """
    if precision not in ("float32", "bfloat16", "auto"):
        raise unknown("precision", precision, ("float32", "bfloat16", "auto"))
    on_cpu = ctx.device_type == "cpu"
    if precision == "auto":
        precision = "bfloat16" if AMX and on_cpu else "float32"
        log.info("precision auto: %s", precision)
    if precision == "bfloat16" and not (on_cpu and "avx512bw" in _cpu_flags()):
        raise InputError("precision='bfloat16' needs a CPU with AVX-512; use 'float32' or 'auto'")
    return precision


def _import_mxnet():  # type: ignore[no-untyped-def]  # MXNet has no type hints
    wheel = installed_wheel()
    os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")  # not four work spaces, half a GB each
    _mend_numpy()
    _check_distutils()
    if wheel == "mxnet-cu112":
        _load_cuda_libraries()
    try:
        import mxnet
    except OSError as error:
        raise SetupError(
            f"{wheel} cannot be loaded ({error}); without an NVIDIA driver use the CPU wheel:"
            f" pip uninstall -y {wheel}, then pip install 'mxnet==1.9.1'"
        ) from error
    return mxnet


mx = _import_mxnet()
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # MXNet's name for it
AMX = _switch_on_amx()

if TYPE_CHECKING:  # MXNet has no type hints
    Context = Any
    NDArray = Any
else:
    Context = mx.context.Context
    NDArray = mx.nd.NDArray


def _gpu_count() -> int:
    try:
        return int(mx.context.num_gpus())
    except mx.MXNetError as error:
        log.debug("counting GPUs failed: %s", error)
        return 0


@functools.lru_cache(maxsize=None)
def gpu_works(index: int) -> bool:
    """Whether a small convolution runs on GPU `index`.

    It is tried in a process of its own, because a kernel that the GPU cannot run (compute
    capability 9.0 and later) aborts the process.
    """
    if installed_wheel() != "mxnet-cu112" or index >= _gpu_count():
        return False
    trial = (
        "from fmi._mxnet import mx;"
        f"x = mx.nd.ones((1, 3, 8, 8), ctx=mx.gpu({index}));"
        "print(mx.nd.Convolution(x, x[:, :, :3, :3], no_bias=True, kernel=(3, 3),"
        " num_filter=1).sum().asscalar())"
    )
    done = subprocess.run(
        [sys.executable, "-c", trial], capture_output=True, timeout=120, check=False
    )
    return done.returncode == 0


@functools.lru_cache(maxsize=None)
def _best_context() -> Context:
    chosen = mx.gpu(0) if gpu_works(0) else mx.cpu()
    log.info("computing on %s", chosen)
    return chosen


def context(ctx: Union[None, str, Context] = None) -> Context:
    """The device to compute on.

    Parameters
    ----------
    ctx
        ``None``: the first GPU if it works, else the CPU (said in the log). Or ``"cpu"``,
        ``"gpu"``, ``"gpu(1)"``, or a context of MXNet.

    Raises
    ------
    InputError
        If the text is no device, or a GPU is asked for that cannot be used.
    """
    if ctx is None:
        return _best_context()
    match = re.fullmatch(r"(cpu|gpu)(?:\((\d+)\))?", str(ctx).strip())
    if match is None:
        raise InputError(f"unknown device {str(ctx)!r}; use 'cpu', 'gpu' or 'gpu(1)'")
    kind, index = match.group(1), int(match.group(2) or 0)
    if kind == "gpu" and not gpu_works(index):
        raise InputError(
            f"ctx='gpu({index})' asks for a GPU that MXNet cannot use here"
            f" ({installed_wheel()} sees {_gpu_count()}); leave ctx out to compute on the CPU"
        )
    return mx.Context(kind, index)
