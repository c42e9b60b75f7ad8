"""The NVIDIA driver: its version and its GPUs, without MXNet and the CUDA libraries.

As a script, this file prints the result as JSON (with ``--wheel``: the MXNet wheel for this
machine). The Makefile runs it before any package is installed, so it imports only the standard
library.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

__all__ = [
    "CUDA_11",
    "OLDEST",
    "OLDEST_TEXT",
    "PATIENCE",
    "UPDATE",
    "Driver",
    "Gpu",
    "driver",
    "loaded_path",
    "read",
]

LOWEST, HIGHEST = (5, 0), (8, 9)  # compute capabilities supported by the cu112 wheel
OLDEST = (450, 80, 2)  # oldest driver for CUDA 11.x, according to NVIDIA
OLDEST_TEXT = "450.80.02"
CUDA_11 = 11000  # in the format of cuDriverGetVersion

PATIENCE = 120  # timeout of a query in seconds
UPDATE = "sudo ubuntu-drivers install (Ubuntu), or https://www.nvidia.com/drivers"
NO_DEVICE, STUB_LIBRARY = 100, 34  # values of CUresult
MAJOR, MINOR = 75, 76  # values of CUdevice_attribute


@dataclass(frozen=True)
class Gpu:
    """A GPU as described by the driver.

    Attributes
    ----------
    index
        Index as in ``gpu(0)``, among the GPUs in ``CUDA_VISIBLE_DEVICES``.
    name
        Name such as ``"NVIDIA A10"``.
    capability
        Compute capability, major and minor.
    memory
        Size of the memory in bytes.
    """

    index: int
    name: str
    capability: Tuple[int, int]
    memory: int

    @property
    def served(self) -> bool:
        """Whether the cu112 wheel has kernels for it."""
        return LOWEST <= self.capability <= HIGHEST

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver, or the reason why there is none.

    Attributes
    ----------
    path
        Path of ``libcuda.so.1``; empty if it cannot be loaded.
    version
        Version such as ``"535.129.03"``; empty if unknown.
    cuda
        Newest supported CUDA version, 11020 for 11.2; 0 if unknown.
    status
        Return value of ``cuInit``; 0 means success.
    message
        Error message of the driver or of the dynamic loader.
    stub
        Whether the library is not a driver but a stub for linking programs.
    hardware
        Whether the PCI bus has an NVIDIA GPU.
    gpus
        The GPUs that are visible to this process.
    """

    path: str = ""
    version: str = ""
    cuda: int = 0
    status: int = 0
    message: str = ""
    stub: bool = False
    hardware: bool = False
    gpus: Tuple[Gpu, ...] = ()

    def describe(self) -> str:
        """Return the version for display."""
        cuda = f"CUDA {self.cuda // 1000}.{self.cuda % 1000 // 10}" if self.cuda else ""
        return ", ".join(part for part in (self.version, cuda) if part) or "version unknown"

    def problem(self) -> str:
        """Return why no GPU can be used and how to fix it, or nothing if one may be usable."""
        if self.stub:
            return (
                f"{self.path} is a stub, not a driver: remove its folder from LD_LIBRARY_PATH,"
                f" and install the driver: {UPDATE}"
            )
        if not self.path:
            if self.hardware:
                return (
                    "the NVIDIA GPU has no driver (libcuda.so.1 was not found): start a container"
                    f" with --gpus all; outside of containers: {UPDATE}"
                )
            return "there is no NVIDIA GPU and no driver (libcuda.so.1 was not found)"
        if 0 < self.cuda < CUDA_11 or (self.version and _numbers(self.version) < OLDEST):
            return (
                f"the NVIDIA driver ({self.describe()}) is older than {OLDEST_TEXT}, which CUDA 11"
                f" needs: {UPDATE}"
            )
        if self.status not in (0, NO_DEVICE):
            return (
                f"the NVIDIA driver does not start ({self.message or f'error {self.status}'}):"
                f" restart the machine, then {UPDATE}"
            )
        if not self.gpus:
            return (
                "the NVIDIA driver reports no GPU: unset CUDA_VISIBLE_DEVICES; start a container"
                " with --gpus all"
            )
        return ""

    def wheel(self) -> str:
        """Return the MXNet wheel for this machine, ``"cu112"`` or ``"cpu"``."""
        served = not self.problem() and any(gpu.served for gpu in self.gpus)
        return "cu112" if served else "cpu"


@functools.lru_cache(maxsize=None)
def driver() -> Driver:
    """Query the driver of this machine once, in a separate process.

    A process must not fork after it has initialised the driver.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).resolve())],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _silent(f"it did not respond in {PATIENCE} s")
    if done.returncode != 0:
        return _silent(f"it ended with status {done.returncode}")
    try:
        return read(json.loads(done.stdout.splitlines()[-1]))  # the driver may print lines too
    except (ValueError, LookupError, TypeError):
        return _silent("its answer cannot be read")


def _silent(why: str) -> Driver:
    """Return a driver that does not answer."""
    return Driver(path="libcuda.so.1", status=-1, message=why, hardware=_hardware())


def read(answer: Dict[str, Any]) -> Driver:
    """Return the :class:`Driver` that a JSON object describes."""
    gpus = [Gpu(**{**gpu, "capability": tuple(gpu["capability"])}) for gpu in answer["gpus"]]
    return Driver(**{**answer, "gpus": tuple(gpus)})


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _hardware() -> bool:
    """Return whether the PCI bus has a display or 3D controller of vendor 0x10de."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _version() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:  # WSL has none
        return ""
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return match.group(1) if match else ""


def loaded_path(library: str) -> str:
    """Return the file from which this process has loaded a library."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[5:]
        if path and library in Path(path[0]).name:
            return path[0]
    return library


def _ask() -> Driver:
    """Load and query the driver; call this only in a separate process."""
    about: Dict[str, Any] = {"version": _version(), "hardware": _hardware()}
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Driver(message=str(error), **about)
    about["path"] = loaded_path("libcuda.so")
    if not hasattr(cuda, "cuInit"):
        return Driver(stub=True, **about)
    status = int(cuda.cuInit(0))
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        about["cuda"] = number.value
    if status != 0:
        stub = status == STUB_LIBRARY
        return Driver(status=status, message=_message(cuda, status), stub=stub, **about)
    gpus: List[Gpu] = []
    if cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
        gpus = [_gpu(cuda, index) for index in range(number.value)]
    return Driver(gpus=tuple(gpus), **about)


def _message(cuda: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    known = cuda.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value
    return text.value.decode() if known and text.value else ""


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, value = ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (MAJOR, MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(index, name.value.decode(), (capability[0], capability[1]), memory.value)


if __name__ == "__main__":
    answer = driver().wheel() if "--wheel" in sys.argv else json.dumps(asdict(_ask()))
    sys.stdout.write(f"{answer}\n")
