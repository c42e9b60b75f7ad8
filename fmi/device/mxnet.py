"""The one door to MXNet: every other module imports ``mx`` from here.

MXNet 1.9.1 is the project's last release; this module mends what has changed around it since
(NumPy's ``np.bool``, Python 3.12's missing ``distutils``), loads the CUDA libraries that pip
installs, and chooses the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from fmi.device import environment, gpus
from fmi.device.driver import driver
from fmi.errors import InputError, SetupError, unknown

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "MXNET_USE_FUSION": "0",  # its run-time compiler is not needed
    "MXNET_CUDNN_LIB_CHECKING": "0",  # a note about cuDNN's minor version
    "NVIDIA_TF32_OVERRIDE": "0",  # float32 is float32: Ampere and later would round to 10 bits
}


def _mend_numpy() -> None:
    """Give NumPy 1.24-1.26 back the alias ``np.bool``, which MXNet asks for at import."""
    environment.check_numpy(np.__version__)
    vars(np).setdefault("bool", bool)  # not hasattr: it warns


def _switch_on_amx() -> bool:
    """Let MXNet's convolutions in bfloat16 use the CPU's matrix unit (AMX), where it has one.

    oneDNN uses it only if ``DNNL_MAX_CPU_ISA`` says so before its first primitive, and the
    process is killed unless it has asked Linux for the tile registers before. The variable is
    taken back at once: a process started from here has not asked. ``FMI_AMX=0`` leaves AMX off.
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


def compute_type(precision: str, ctx: Context) -> str:
    """The number format of the network, ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Parameters
    ----------
    precision
        ``"float32"``, ``"bfloat16"`` (CPUs), ``"float16"`` (GPUs; unverified, as no GPU was at
        hand), or ``"auto"``: bfloat16 where the CPU has AMX, which makes it several times as
        fast, else float32; the choice is logged.
    ctx
        The device.

    Raises
    ------
    InputError
        For another word, or a format that the device has not.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    on_cpu = ctx.device_type == "cpu"
    if precision == "auto":
        precision = "bfloat16" if AMX and on_cpu else "float32"
        log.info("precision auto: %s", precision)
    if precision == "bfloat16" and not (on_cpu and "avx512bw" in environment.cpu_flags()):
        raise InputError("precision='bfloat16' needs a CPU with AVX-512; use 'float32' or 'auto'")
    if precision == "float16" and on_cpu:
        raise InputError("precision='float16' needs a GPU; use 'float32' or 'auto'")
    return precision


def _import_mxnet():  # type: ignore[no-untyped-def]  # MXNet has no type hints
    wheel = environment.installed_wheel()
    os.environ.setdefault("MXNET_CPU_TEMP_COPY", "1")  # not four work spaces, half a GB each
    _mend_numpy()
    environment.check_distutils()
    if wheel == "mxnet-cu112":
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        environment.load_cuda_libraries()
    # By itself it computes on half of the cores, taking them for two each; and its threads wait
    # actively, which makes it many times as slow where another process wants the cores too.
    threads = environment.variable("OMP_NUM_THREADS", str(environment.cores()))
    waiting = environment.variable("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with threads, waiting:
            import mxnet
    except OSError as error:
        text = environment.import_problem(wheel, str(error), driver())
        raise SetupError(text) from error
    return mxnet


mx = _import_mxnet()
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # MXNet's name for it
AMX = _switch_on_amx()

if TYPE_CHECKING:  # MXNet has no type hints
    Context = Any
    NDArray = Any
else:
    Context = mx.context.Context
    NDArray = mx.nd.NDArray


def gpu_works(index: int) -> bool:
    """Whether a small convolution runs on GPU `index`; tried once."""
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
    # Where a GPU was to be expected, its absence is said even if nobody listens to the log.
    expected = driver().hardware or found or environment.installed_wheel() == "mxnet-cu112"
    log.log(logging.WARNING if expected else logging.INFO, "computing on the CPU: %s", problems[0])
    return mx.cpu()


def context(ctx: Union[None, str, Context] = None) -> Context:
    """The device to compute on.

    Parameters
    ----------
    ctx
        ``"cpu"``, ``"gpu"``, ``"gpu(1)"``, or a context of MXNet. ``None``: what the environment
        variable ``FMI_CTX`` says; without it the first GPU that passes a trial, else the CPU, and
        the log says why.

    Raises
    ------
    InputError
        If the text is no device, or a GPU is asked for that cannot be used.
    """
    asked = "ctx"
    if ctx is None and os.environ.get("FMI_CTX"):
        asked, ctx = "FMI_CTX", os.environ["FMI_CTX"]
    if ctx is None:
        return _best_context()
    device = gpus.parse(str(ctx))
    if device is None:
        where = "" if asked == "ctx" else f" in {asked}"
        raise InputError(f"unknown device {str(ctx)!r}{where}; use 'cpu', 'gpu' or 'gpu(1)'")
    kind, index = device
    if kind == "gpu":
        problem = gpus.problem(index)
        if problem:
            raise InputError(
                f"{asked}='gpu({index})' requests a GPU that MXNet cannot use here: {problem};"
                f" to compute on the CPU, use {asked}='cpu'"
            )
    return mx.Context(kind, index)


def device_name(ctx: Context) -> str:
    """A GPU's name and compute capability; empty for the CPU."""
    return str(driver().gpus[ctx.device_id]) if ctx.device_type == "gpu" else ""


def free_memory(ctx: Context) -> int:
    """Bytes that are free on a device; 2 GiB where nobody tells."""
    free: Optional[int] = None
    if ctx.device_type == "gpu":
        with contextlib.suppress(mx.MXNetError):
            free = mx.context.gpu_memory_info(ctx.device_id)[0]
    else:
        free = environment.free_main_memory()
    return 2 << 30 if free is None else int(free)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of MXNet's is for want of a GPU's memory."""
    return any(word in str(error) for word in ("out of memory", "ALLOC_FAILED"))


def out_of_main_memory(error: Exception) -> bool:
    """Whether it is for want of the machine's memory; MXNet cannot be relied on afterwards."""
    return "Failed to allocate CPU Memory" in str(error)


def release_memory(ctx: Context) -> None:
    """Give back what MXNet keeps for later, after an error for want of memory."""
    with contextlib.suppress(mx.MXNetError):  # the queue may hold further errors of the same kind
        mx.nd.waitall()
    if ctx.device_type == "gpu":
        ctx.empty_cache()
