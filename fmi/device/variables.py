"""Environment variables that MXNet reads: check them first, since it aborts or hangs otherwise.

What each variable takes was found by running MXNet 1.9.1 (the CPU wheel) with it; those that only
the cu112 wheel reads are as documented. This module does not import MXNet.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Mapping, Optional, Tuple

from fmi.device import environment
from fmi.errors import SetupError, shown

__all__ = ["MOST_THREADS", "check", "threads"]

MOST_THREADS = 1024  # MXNet needs seconds to start with more, and crashes with a million
ANY = (-(2**31), 2**31 - 1)  # a C int
COUNT = (1, MOST_THREADS)
NODES = (0, 100_000)  # of the graph; memory is reserved for as many

BOUNDS: Dict[str, Tuple[int, int]] = {
    "MXNET_CPU_PARALLEL_RAND_COPY": (1, 256),
    "MXNET_CPU_PRIORITY_NTHREADS": COUNT,
    "MXNET_CPU_TEMP_COPY": COUNT,
    "MXNET_CPU_WORKER_NTHREADS": COUNT,
    "MXNET_GPU_COPY_NTHREADS": COUNT,
    "MXNET_GPU_PARALLEL_RAND_COPY": COUNT,
    "MXNET_GPU_TEMP_COPY": COUNT,
    "MXNET_GPU_WORKER_NTHREADS": COUNT,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN": NODES,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD": NODES,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD": NODES,
    "MXNET_GPU_MEM_POOL_RESERVE": (0, 100),
    "MXNET_MKLDNN_CACHE_NUM": (-1, ANY[1]),
    "MXNET_OMP_MAX_THREADS": (0, ANY[1]),
    "MXNET_USE_NUM_CORES_OPERATOR_TUNING": (0, 256),  # 1024 takes more than 25 s
    "NNVM_EXEC_MATCH_RANGE": (0, ANY[1]),
    **dict.fromkeys(
        [
            "MXNET_BACKWARD_DO_MIRROR",
            "MXNET_CPU_PARALLEL_SIZE",
            "MXNET_CUDNN_AUTOTUNE_DEFAULT",
            "MXNET_DISABLE_MKLDNN_CONV_OPT",
            "MXNET_DISABLE_MKLDNN_FC_OPT",
            "MXNET_DISABLE_MKLDNN_FUSE_CONV_BN",
            "MXNET_DISABLE_MKLDNN_FUSE_CONV_RELU",
            "MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM",
            "MXNET_DISABLE_MKLDNN_TRANSFORMER_OPT",
            "MXNET_EXEC_INPLACE_GRAD_SUM_CAP",
            "MXNET_GPU_MEM_LARGE_ALLOC_ROUND_SIZE",
            "MXNET_GPU_MEM_POOL_ROUND_LINEAR_CUTOFF",
            "MXNET_MP_OPENCV_NUM_THREADS",
            "MXNET_MP_WORKER_NTHREADS",
            "MXNET_PROFILER_AUTOSTART",
            "MXNET_PROFILER_MODE",
            "MXNET_SUBGRAPH_VERBOSE",
            "NNVM_EXEC_NUM_TEMP",
        ],
        ANY,
    ),
}
SWITCHES = [
    "MXNET_CUDA_LIB_CHECKING",
    "MXNET_CUDNN_LIB_CHECKING",
    "MXNET_DISABLE_MKLDNN_FUSE_FC_ELTWISE",
    "MXNET_DISABLE_MKLDNN_QEM_FLOAT_OUTPUT",
    "MXNET_DISABLE_MKLDNN_QEM_FUSE_ALL",
    "MXNET_DISABLE_MKLDNN_QFC_FLOAT_OUTPUT",
    "MXNET_DISABLE_MKLDNN_QFC_FUSE_ALL",
    "MXNET_DISABLE_MKLDNN_QTRANSFORMER_FLOAT_OUTPUT",
    "MXNET_DISABLE_MKLDNN_QTRANSFORMER_FUSE_ALL",
    "MXNET_ELIMINATE_COMMON_EXPR",
    "MXNET_ENABLE_GPU_P2P",
    "MXNET_ENGINE_INFO",
    "MXNET_EXEC_BULK_EXEC_INFERENCE",
    "MXNET_EXEC_BULK_EXEC_TRAIN",
    "MXNET_EXEC_VERBOSE_LOGGING",
    "MXNET_INFER_STORAGE_TYPE_VERBOSE_LOGGING",
    "MXNET_KVSTORE_LOGTREE",
    "MXNET_MEM_PLAN_VERBOSE_LOGGING",
    "MXNET_MKLDNN_DEBUG",
    "MXNET_MKLDNN_ENABLED",
    "MXNET_OUTPUT_TUNING_DATA",
    "MXNET_SAFE_ACCUMULATION",
    "MXNET_STORAGE_FALLBACK_LOG_VERBOSE",
    "MXNET_USE_FUSION",
    "MXNET_VERBOSE_TUNING_INFO",
    "NNVM_AUTO_SEARCH_MATCH_RANGE",
]
WEIGHT_SCALE = "MXNET_TUNING_WEIGHT_SCALE"
CHOICES: Dict[str, Tuple[str, ...]] = {  # as they are, the empty text included
    "DMLC_ROLE": ("worker",),
    "MXNET_ENABLE_CYTHON": ("0", "1"),
    "MXNET_ENFORCE_CYTHON": ("0",),
    "MXNET_ENGINE_TYPE": ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice"),
    "MXNET_GPU_MEM_POOL_TYPE": ("Naive", "Round", "Unpooled", ""),
    "MXNET_SUBGRAPH_BACKEND": ("MKLDNN", "MKLDNN_QUANTIZE", "NONE", ""),
    "FMI_AMX": ("0", "1", ""),
}


def check(environ: Optional[Mapping[str, str]] = None) -> None:
    """Check all variables that are set.

    Parameters
    ----------
    environ
        The environment; by default, that of this process.

    Raises
    ------
    SetupError
        If MXNet would abort, hang or run out of memory with a value.
    """
    environ = os.environ if environ is None else environ
    threads(environ)
    for name, value in environ.items():
        takes = ""
        if name in CHOICES:
            if value not in CHOICES[name]:
                takes = " or ".join(word for word in CHOICES[name] if word)
        elif not value:  # for MXNet, as if it were not set
            continue
        elif name in SWITCHES:
            if value.lower() not in ("0", "1", "false", "true"):
                takes = "0 or 1"
        elif name == WEIGHT_SCALE:
            if not re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]{1,2})?\s*", value):
                takes = "a number"
        elif name in BOUNDS and not _within(value, *BOUNDS[name]):
            low, high = BOUNDS[name]
            takes = "a whole number" + ("" if (low, high) == ANY else f" from {low} to {high}")
        if takes:
            raise _refused(name, value, takes)


def threads(environ: Optional[Mapping[str, str]] = None) -> str:
    """Return the number of threads for MXNet: from ``OMP_NUM_THREADS``, or the number of cores.

    OpenMP allows a list with a number for each level of nested regions, but MXNet aborts if it
    reads one; the first number is for the outermost level.

    Raises
    ------
    SetupError
        If a number is not from 1 to :data:`MOST_THREADS`.
    """
    environ = os.environ if environ is None else environ
    value = environ.get("OMP_NUM_THREADS", "")
    if not value.strip():
        return str(environment.cores())
    numbers = value.split(",")
    if not all(_within(number, 1, MOST_THREADS) for number in numbers):
        raise _refused("OMP_NUM_THREADS", value, f"a whole number from 1 to {MOST_THREADS}")
    return numbers[0].strip()


def _within(value: str, low: int, high: int) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", value)) and low <= int(value) <= high


def _refused(name: str, value: str, takes: str) -> SetupError:
    return SetupError(
        f"the environment variable {name}={shown(value)} cannot be used, as it takes {takes}:"
        f" unset {name}"
    )
