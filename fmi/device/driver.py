"""What the NVIDIA driver says: its version and its GPUs. Needs neither MXNet nor CUDA's libraries.

Run as a file it prints the answer as JSON (``--wheel``: the MXNet wheel for this machine), which
the Makefile asks for before anything is installed; so it imports nothing but the standard library.
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

LOWEST, HIGHEST = (5, 0), (8, 9)  # compute capabilities that the cu112 wheel has kernels for
OLDEST = (450, 80, 2)  # NVIDIA: the oldest driver for CUDA 11.x
OLDEST_TEXT = "450.80.02"
CUDA_11 = 11000  # as cuDriverGetVersion counts

UPDATE = "sudo ubuntu-drivers install (Ubuntu), or https://www.nvidia.com/drivers"
NO_DEVICE, STUB_LIBRARY = 100, 34  # of CUDA's CUresult
MAJOR, MINOR = 75, 76  # of CUDA's CUdevice_attribute


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver describes it.

    Attributes
    ----------
    index
        As in ``gpu(0)``; ``CUDA_VISIBLE_DEVICES`` is obeyed.
    name
        Such as ``"NVIDIA A10"``.
    capability
        Compute capability, major and minor.
    memory
        Bytes.
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
    """The NVIDIA driver, or why there is none.

    Attributes
    ----------
    path
        Of ``libcuda.so.1``; empty if it cannot be loaded.
    version
        Such as ``"535.129.03"``; empty if the kernel does not tell.
    cuda
        The newest CUDA that it serves, 11020 for 11.2; 0 if it does not tell.
    status
        What ``cuInit`` returned; 0 is success.
    message
        The driver's own word for another status, or the loader's.
    stub
        Whether the library is no driver but a stand-in that programs are linked against.
    hardware
        Whether the PCI bus has an NVIDIA GPU.
    gpus
        Those that a program may use.
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
        """Its version, for a person."""
        cuda = f"CUDA {self.cuda // 1000}.{self.cuda % 1000 // 10}" if self.cuda else ""
        return ", ".join(part for part in (self.version, cuda) if part) or "version unknown"

    def problem(self) -> str:
        """Why no GPU can be used, and the command that mends it; empty if one might be."""
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
        """The MXNet wheel for this machine, ``"cu112"`` or ``"cpu"``."""
        served = not self.problem() and any(gpu.served for gpu in self.gpus)
        return "cu112" if served else "cpu"


@functools.lru_cache(maxsize=None)
def driver() -> Driver:
    """The driver of this machine, asked once, in a process of its own.

    A process that has started the driver must not fork afterwards; this one stays free to.
    """
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).resolve())],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        why = f"it ended with status {done.returncode}"
        return Driver(path="libcuda.so.1", status=-1, message=why, hardware=_hardware())
    return read(json.loads(done.stdout))


def read(answer: Dict[str, Any]) -> Driver:
    """A :class:`Driver` from its JSON."""
    gpus = [Gpu(**{**gpu, "capability": tuple(gpu["capability"])}) for gpu in answer["gpus"]]
    return Driver(**{**answer, "gpus": tuple(gpus)})


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _hardware() -> bool:
    """Whether a display or 3D controller of vendor 0x10de is on the PCI bus."""
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
    """The file from which this process has loaded a library."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[5:]
        if path and library in Path(path[0]).name:
            return path[0]
    return library


def _ask() -> Driver:
    """Load the driver and ask it; only ever in a process of its own."""
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
    found = _ask()
    answer = found.wheel() if "--wheel" in sys.argv else json.dumps(asdict(found))
    sys.stdout.write(f"{answer}\n")
