"""The environment that MXNet needs: a wheel for this machine, NumPy 1, distutils, CUDA libraries.

This module does not import MXNet or NumPy, so that ``fmi doctor`` can report what is wrong if they
cannot be imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import platform
import site
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Optional

from fmi.device.driver import UPDATE, Driver, loaded_path
from fmi.errors import SetupError

__all__ = [
    "CUDA_LIBRARIES",
    "Library",
    "broken",
    "check_distutils",
    "check_numpy",
    "cores",
    "cpu_flags",
    "cpu_name",
    "free_main_memory",
    "has_amx",
    "import_problem",
    "installed_wheel",
    "lacking",
    "load_cuda_libraries",
    "own_memory",
    "pip_install",
    "shared_with_cuda_12",
    "thread_name",
    "thread_seconds",
    "to_cpu",
    "to_cu112",
    "variable",
]

log = logging.getLogger(__name__)

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


def pip_install(extra: str, *options: str) -> str:
    """Return the command that installs an extra of this package, such as ``"cluster"``.

    fmi is on no package index, so that extras are installed from its clone. The extra ``"cpu"`` is
    one package, which is named.

    Parameters
    ----------
    extra
        An extra of ``setup.py``.
    options
        Options of pip.
    """
    if extra == "cpu":
        return " ".join(["pip install 'mxnet==1.9.1'", *options])
    root = Path(__file__).resolve().parents[2]
    checkout = (root / "setup.py").is_file()
    command = " ".join([f"pip install -e '{root if checkout else '.'}[{extra}]'", *options])
    return command if checkout else f"{command} in the folder of fmi's clone"


def lacking(extra: str, need: str) -> SetupError:
    """Return the error for a package that is not installed.

    Parameters
    ----------
    extra
        The extra of ``setup.py`` that installs it.
    need
        What needs which package, such as ``"a cluster needs dask.distributed"``.
    """
    return SetupError(f"{need}: {pip_install(extra)}")


def to_cpu() -> str:
    """Return the command that replaces the cu112 wheel with the CPU wheel."""
    return f"pip uninstall -y mxnet-cu112 && {pip_install('cpu')}"


def to_cu112() -> str:
    """Return the command that replaces the CPU wheel with the cu112 wheel."""
    return f"pip uninstall -y mxnet && {pip_install('cu112')}"


def installed_wheel() -> str:
    """Return the name of the installed MXNet distribution, ``"mxnet"`` or ``"mxnet-cu112"``.

    Raises
    ------
    SetupError
        If none or both are installed. Both install the same files, so they overwrite each other.
    """
    wheels = []
    for name in ("mxnet", "mxnet-cu112"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        wheels.append(name)
    if not wheels:
        raise SetupError(
            f"MXNet is not installed: {pip_install('cpu')} (CPU) or {pip_install('cu112')}"
            " (NVIDIA GPU)"
        )
    if len(wheels) == 2:
        raise SetupError(
            "mxnet and mxnet-cu112 are both installed and overwrite each other:"
            f" pip uninstall -y mxnet mxnet-cu112 && {pip_install('cpu')} (CPU) or"
            f" {pip_install('cu112')} (NVIDIA GPU)"
        )
    return wheels[0]


def check_numpy(version: str) -> None:
    """Check that NumPy is not version 2, which MXNet 1.9.1 does not support.

    Raises
    ------
    SetupError
        If it is; the message contains the command that installs NumPy 1.
    """
    if int(version.split(".")[0]) >= 2:
        raise SetupError(
            f"NumPy {version} is installed, but MXNet 1.9.1 needs NumPy 1: pip install 'numpy<2'"
        )


def check_distutils() -> None:
    """Check that ``distutils`` exists; on Python 3.12 and later, setuptools provides it.

    Raises
    ------
    SetupError
        If ``distutils`` is missing.
    """
    if importlib.util.find_spec("distutils") is None:
        raise SetupError("MXNet needs distutils, which is missing: pip install setuptools")


@dataclass(frozen=True)
class Library:
    """A CUDA library and the file it was loaded from.

    Attributes
    ----------
    name
        Name such as ``libcudnn.so.8``.
    path
        Path of the file; empty if the library could not be loaded.
    version
        Version of the pip package, or the version in the name of a system file.
    error
        Error message of the dynamic loader, if the library could not be loaded.
    """

    name: str
    path: str = ""
    version: str = ""
    error: str = ""


def load_cuda_libraries() -> List[Library]:
    """Load the libraries of the ``nvidia-*-cu11`` packages, so that MXNet finds them.

    If pip has not installed a library, the library of the system is used.
    """
    return [_load(package, library) for package, library in CUDA_LIBRARIES.items()]


def _load(package: str, library: str) -> Library:
    error = ""
    for candidate in _candidates(package, library):
        try:
            ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError as problem:
            error = str(problem)
            log.debug("%s not loaded from %s: %s", library, candidate, problem)
            continue
        path = candidate if "/" in candidate else loaded_path(library)
        log.debug("%s loaded from %s", library, path)
        return Library(library, path, _version(package, Path(path)))
    log.debug("%s not loaded", library)  # importing MXNet reports a required library
    return Library(library, error=error)


def _candidates(package: str, library: str) -> Iterator[str]:
    """Yield possible paths of a library: pip's folders, the loader's, the usual CUDA folders."""
    pips = [*sys.path, site.getusersitepackages()]
    for folder in dict.fromkeys(pips):
        file = Path(folder) / "nvidia" / package / "lib" / library
        if folder and file.is_file():
            yield str(file)
    yield library
    named = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    roots = [Path(root) for root in named if root]
    roots += [*sorted(Path("/usr/local").glob("cuda-11*"), reverse=True), Path(sys.prefix)]
    for root in roots:
        for file in (root / "lib64" / library, root / "lib" / library):
            if file.is_file():
                yield str(file)


def _version(package: str, path: Path) -> str:
    if path.parent.parent.parent.name == "nvidia":
        try:
            return importlib.metadata.version(f"nvidia-{package.replace('_', '-')}-cu11")
        except importlib.metadata.PackageNotFoundError:
            return ""
    return path.resolve().name.partition(".so.")[2]


def shared_with_cuda_12() -> List[str]:
    """Return the CUDA 12 packages that have overwritten a CUDA 11 library of the same name."""
    found = []
    for package, library in CUDA_LIBRARIES.items():
        name = f"nvidia-{package.replace('_', '-')}-cu12"
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if any(file.name == library for file in files):
            found.append(name)
    return found


def import_problem(wheel: str, error: str, driver: Driver) -> str:
    """Return why the library of a wheel cannot be loaded, and the command that fixes it.

    Parameters
    ----------
    wheel
        The installed wheel.
    error
        Error message of the dynamic loader.
    driver
        The NVIDIA driver.
    """
    if wheel == "mxnet-cu112":
        if "undefined symbol: cu" in error or "libcuda.so" in error:
            why = driver.problem() or f"the NVIDIA driver is incompatible ({error}): {UPDATE}"
            return f"mxnet-cu112 cannot be loaded: {why}; or compute on the CPU: {to_cpu()}"
        missing = [name for name in CUDA_LIBRARIES.values() if name in error]
        if missing:
            return f"mxnet-cu112 cannot be loaded: {missing[0]} is missing: {pip_install('cu112')}"
    again = "cpu" if wheel == "mxnet" else "cu112"
    return f"{wheel} cannot be loaded ({error}): {pip_install(again, '--force-reinstall')}"


def broken(wheel: str, error: BaseException) -> str:
    """Return the message for a wheel that raises another error when it is imported."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__
    again = pip_install("cpu" if wheel == "mxnet" else "cu112", "--force-reinstall")
    return f"{wheel} cannot be imported ({why}): {again}"


def cpu_flags() -> FrozenSet[str]:
    """Return the feature flags of the CPU as named by Linux, such as ``"amx_bf16"``."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(next((x for x in text.splitlines() if x.startswith("flags")), "").split())


def cpu_name() -> str:
    """Return the model of the CPU as named by Linux, or nothing if it is unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    line = next((x for x in text.splitlines() if x.startswith("model name")), "")
    return line.partition(":")[2].strip()


def has_amx() -> bool:
    """Return whether the CPU has a matrix unit for bfloat16."""
    return platform.machine() == "x86_64" and "amx_bf16" in cpu_flags()


def cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores that this process may use.

    Parameters
    ----------
    root
        Folder that contains ``sys``.
    """
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return max(1, os.cpu_count() or 1)
    found = set()
    for number in allowed:
        topology = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        try:
            found.add(topology.read_text().strip())
        except OSError:
            found.add(str(number))
    return len(found)


def own_memory() -> int:
    """Return the main memory in bytes that this process takes, or 0 if it is unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def thread_name() -> str:
    """Return the name of the calling thread in :func:`thread_seconds`."""
    return str(threading.get_native_id())


def thread_seconds() -> Dict[str, float]:
    """Return the seconds that each thread of this process has spent on a core.

    Without Linux's ``/proc`` there is only the sum of all threads, under an empty name.
    """
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
            nanoseconds = (folder / "schedstat").read_text().split()[0]
            found[folder.name] = int(nanoseconds) / 1e9
    return found or {"": time.process_time()}


@contextlib.contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable temporarily."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def free_main_memory(root: Path = Path("/")) -> Optional[int]:
    """Return the memory in bytes that is available to this process, with cgroup limits applied.

    Parameters
    ----------
    root
        Folder that contains ``proc`` and ``sys``.

    Returns
    -------
    int or None
        ``None`` if the value is unknown.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    group = root / "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            found.append(int((group / limit).read_text()) - int((group / used).read_text()))
    return max(0, min(found)) if found else None
