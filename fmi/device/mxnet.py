"""Import MXNet: every other module imports ``mx`` from here.

MXNet 1.9.1 is the last release. This module works around later changes in its dependencies
(``np.bool`` in NumPy, ``distutils`` in Python 3.12), loads the CUDA libraries that pip installs,
and chooses the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from fmi.device import environment, gpus, variables
from fmi.device.driver import driver
from fmi.errors import InputError, SetupError, shown

__all__ = [
    "AMX",
    "BFLOAT16",
    "ENVIRONMENT",
    "Context",
    "NDArray",
    "context",
    "device_name",
    "free_memory",
    "gpu_works",
    "mx",
    "out_of_main_memory",
    "out_of_memory",
    "release_memory",
]

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "MXNET_USE_FUSION": "0",  # the run-time compiler is not needed
    "MXNET_CUDNN_LIB_CHECKING": "0",  # suppress a note about the minor version of cuDNN
    "NVIDIA_TF32_OVERRIDE": "0",  # use true float32; Ampere and later would round to 10 bits
}


def _mend_numpy() -> None:
    """Restore the alias ``np.bool`` in NumPy 1.24-1.26, which MXNet needs at import."""
    environment.check_numpy(np.__version__)
    vars(np).setdefault("bool", bool)  # not hasattr: it warns


def _switch_on_amx() -> bool:
    """Let MXNet's convolutions in bfloat16 use the matrix unit (AMX) of the CPU, if it has one.

    oneDNN uses AMX only if ``DNNL_MAX_CPU_ISA`` allows it before the first primitive is created,
    and Linux kills the process unless it has requested the tile registers before. The variable is
    removed immediately, because child processes have not made this request. ``FMI_AMX=0``
    disables AMX.
    """
    variable = "DNNL_MAX_CPU_ISA"
    if os.environ.get("FMI_AMX") == "0" or variable in os.environ:
        return False
    if not environment.has_amx():
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


def _import_mxnet():  # type: ignore[no-untyped-def]  # MXNet has no type hints
    wheel = environment.installed_wheel()
    variables.check()
    os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")  # instead of four work spaces of 0.5 GB
    _mend_numpy()
    environment.check_distutils()
    if wheel == "mxnet-cu112":
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        environment.load_cuda_libraries()
    # By default, MXNet uses only half of the cores, because it assumes two threads per core. Its
    # threads also wait actively, which slows it down severely if other processes use the cores.
    threads = environment.variable("OMP_NUM_THREADS", variables.threads())
    waiting = environment.variable("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "PASSIVE"))
    if "mxnet" not in sys.modules:  # what is left of an import that has failed (np.bool)
        for name in [name for name in sys.modules if name.startswith("mxnet.")]:
            del sys.modules[name]
    try:
        with threads, waiting:
            import mxnet
    except OSError as error:
        text = environment.import_problem(wheel, str(error), driver())
        raise SetupError(text) from error
    except Exception as error:  # it is damaged, or half of it is missing
        raise SetupError(environment.broken(wheel, error)) from error
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


def gpu_works(index: int) -> bool:
    """Return whether a small convolution runs on GPU `index`; the result is cached."""
    return not gpus.problem(index)


@functools.lru_cache(maxsize=None)
def _best_context() -> Context:
    found = driver().gpus
    problems = []
    for index in range(len(found) or 1):
        problem = gpus.problem(index)
        if not problem:
            log.info("computing on gpu(%d): %s", index, found[index])
            return mx.gpu(index)
        problems.append(problem)
        log.debug("gpu(%d): %s", index, problem)
    # If a GPU was expected, warn about its absence, which is shown even if logging is not set up.
    expected = driver().hardware or found or environment.installed_wheel() == "mxnet-cu112"
    log.log(logging.WARNING if expected else logging.INFO, "computing on the CPU: %s", problems[0])
    return mx.cpu()


def context(ctx: Union[None, str, Context] = None) -> Context:
    """Return the device to compute on.

    Parameters
    ----------
    ctx
        ``"cpu"``, ``"gpu"``, ``"gpu(1)"``, or a context of MXNet. If ``None``, the environment
        variable ``FMI_CTX`` is used; if it is not set, the first GPU that passes a trial, else the
        CPU. The choice and its reason are logged.

    Raises
    ------
    InputError
        If the device does not exist, or is a GPU that cannot be used.
    """
    asked = "ctx"
    if ctx is None and os.environ.get("FMI_CTX"):
        asked, ctx = "FMI_CTX", os.environ["FMI_CTX"]
    if ctx is None:
        return _best_context()
    device = gpus.parse(str(ctx))
    if device is None:
        where = "" if asked == "ctx" else f" in {asked}"
        raise InputError(f"unknown device {shown(str(ctx))}{where}; use 'cpu', 'gpu' or 'gpu(1)'")
    kind, index = device
    if kind == "cpu" and index:
        raise InputError(
            f"{asked}='cpu({index})' is unknown, as all CPUs are one device: use 'cpu'"
        )
    if kind == "gpu":
        problem = gpus.problem(index)
        if problem:
            raise InputError(
                f"{asked}='gpu({index})' requests a GPU that MXNet cannot use here: {problem};"
                f" to compute on the CPU, use {asked}='cpu'"
            )
    return mx.Context(kind, index)


def device_name(ctx: Context) -> str:
    """Return the name and the compute capability of a GPU; empty for the CPU."""
    return str(driver().gpus[ctx.device_id]) if ctx.device_type == "gpu" else ""


def free_memory(ctx: Context) -> int:
    """Return the free memory of a device in bytes, or 2 GiB if it is unknown."""
    free: Optional[int] = None
    if ctx.device_type == "gpu":
        with contextlib.suppress(mx.MXNetError):
            free = mx.context.gpu_memory_info(ctx.device_id)[0]
    else:
        free = environment.free_main_memory()
    return 2 << 30 if free is None else int(free)


def out_of_memory(error: Exception) -> bool:
    """Return whether an MXNet error means that a GPU is out of memory."""
    return any(word in str(error) for word in ("out of memory", "ALLOC_FAILED"))


def out_of_main_memory(error: Exception) -> bool:
    """Return whether an MXNet error means that main memory is exhausted.

    MXNet is not reliable after this error.
    """
    return "Failed to allocate CPU Memory" in str(error)


def release_memory(ctx: Context) -> None:
    """Release the memory that MXNet has cached, after an out-of-memory error."""
    with contextlib.suppress(mx.MXNetError):  # more errors of this kind may be queued
        mx.nd.waitall()
    if ctx.device_type == "gpu":
        ctx.empty_cache()
