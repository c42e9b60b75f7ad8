"""Readers of weights files: convert the bytes of an untrusted file to named arrays.

The format is detected from the content. MXNet's ``.params`` and NumPy's ``.npz`` are read in this
process, and their headers are checked against the size of the file. The compiled readers of HDF5,
MATLAB, PyTorch and safetensors files can crash on a damaged file or exhaust the memory, so they run
in a separate process with limited memory and time (:func:`_isolated`).

Only arrays that can belong to a convolution of VGG-19 or its batch normalisation are read:
floating-point arrays with one or four dimensions, none larger than :data:`ELEMENTS`. Dense layers
are skipped.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import struct
import subprocess
import sys
import zipfile
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from fmi.errors import InputError

__all__ = [
    "ELEMENTS",
    "FORMATS",
    "METADATA",
    "NDARRAY_LIST",
    "NDARRAY_V1",
    "NDARRAY_V2",
    "NDARRAY_V3",
    "NEEDS",
    "START",
    "SUFFIXES",
    "TORCH_LEGACY",
    "TOTAL",
    "TYPES",
    "Arrays",
    "answer_to",
    "format_of",
    "read",
    "read_all_params",
    "serve",
]

Arrays = Dict[str, np.ndarray]

TOTAL = 256 << 20  # bytes; the convolutions of VGG-19 take 80 MB in float32
ELEMENTS = 512 * 512 * 3 * 3  # number of weights in the largest convolutions of VGG-19
METADATA = "metadata"  # an array of the .npz files that `fmi weights convert` writes: JSON

NDARRAY_LIST = 0x112  # first word of .params files
NDARRAY_V1 = 0xF993FAC8
NDARRAY_V2 = 0xF993FAC9
NDARRAY_V3 = 0xF993FACA
TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch before 1.6: its magic number


def read(data: bytes) -> Tuple[str, Arrays]:
    """Read the arrays of a weights file.

    Parameters
    ----------
    data
        Content of the file.

    Returns
    -------
    str
        The format, a key of :data:`FORMATS`.
    dict
        Arrays by name; names and order of axes are those of the file.

    Raises
    ------
    InputError
        If the format is unknown, the file is damaged or too large for VGG-19, or a required
        package is not installed.
    """
    kind = format_of(data)
    reader = FORMATS[kind]
    return kind, reader(data) if kind in ("params", "npz") else _isolated(kind, data)


def format_of(data: bytes) -> str:
    """Detect the format of a file, a key of :data:`FORMATS`, from its content.

    Raises
    ------
    InputError
        If the format is unknown.
    """
    if not data:
        raise InputError("the file is empty")
    if data[:4] == b"PK\x03\x04":
        return "torch" if b"data.pkl" in data[:4096] else "npz"
    if data.startswith(TORCH_LEGACY):
        return "torch"
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if data[:19] == b"MATLAB 5.0 MAT-file":
        return "mat"
    if data[:19] == b"MATLAB 7.3 MAT-file":
        raise InputError("MATLAB 7.3 files are not supported; save it again with -v7")
    if len(data) >= 8:
        (word,) = struct.unpack("<Q", data[:8])
        if word == NDARRAY_LIST:
            return "params"
        if data[8:9] == b"{" and word <= len(data) - 8:
            return "safetensors"
    if data[:1] in (b"<", b"{") or data[:9].lower() == b"version h":
        raise InputError(
            "the file is text, not weights: perhaps an error page or a Git LFS pointer"
        )
    raise InputError(
        "unknown file format; supported weights files are MXNet .params, Keras .h5,"
        " torchvision .pth, .safetensors, MatConvNet .mat and .npz"
    )


def _wanted(shape: Sequence[int], kind: str) -> bool:
    return kind == "f" and len(shape) in (1, 4) and 0 < _count(shape) <= ELEMENTS


class _Budget:
    """Count the bytes of arrays before they are allocated."""

    def __init__(self) -> None:
        self.left = TOTAL

    def take(self, name: str, shape: Sequence[int], itemsize: int) -> None:
        self.left -= _count(shape) * itemsize
        if self.left < 0:
            raise InputError(f"the file is too large for VGG-19: array {name!r} exceeds the limit")


def _count(shape: Sequence[int]) -> int:
    product = 1
    for side in shape:
        product *= int(side)  # Python's integers do not overflow
    return product


# --- NumPy's .npz ---


def _npz(data: bytes) -> Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _members(archive)
    except InputError:
        raise
    except Exception as error:  # zipfile raises nearly anything on a damaged file
        raise InputError(f"the .npz file is damaged: {_first_line(error)}") from None


def _members(archive: zipfile.ZipFile) -> Arrays:
    arrays: Arrays = {}
    budget = _Budget()
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            raise InputError(f"the .npz file contains {info.filename!r}, which is not an array")
        name = info.filename[: -len(".npy")]
        if name in arrays:
            raise InputError(f"the .npz file contains {name!r} twice")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError("the .npz file uses an unsupported compression method")
        with archive.open(info) as stream:
            shape, fortran, dtype = _npy_header(stream)
            text = name == METADATA and dtype.kind == "U" and not shape
            if not text and not _wanted(shape, dtype.kind):
                continue
            budget.take(name, shape, dtype.itemsize)
            size = _count(shape) * dtype.itemsize
            content = stream.read(size + 1)  # up to the end, where zipfile checks the CRC
        if len(content) != size:
            raise InputError(
                f"the .npz file is damaged: the size of {name!r} contradicts its shape"
            )
        order: Any = "F" if fortran else "C"
        arrays[name] = np.frombuffer(content, dtype=dtype).reshape(shape, order=order)
    return arrays


def _npy_header(stream: Any) -> Tuple[Tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise InputError(f"the .npz file contains an array of the unsupported version {version}")
    length = stream.read(2)
    (size,) = struct.unpack("<H", length)
    if size > 1024:  # headers are short, and a long text can overwhelm NumPy's parser
        raise InputError("the .npz file contains an array whose header is too long")
    header = io.BytesIO(length + stream.read(size))
    return np.lib.format.read_array_header_1_0(header)  # type: ignore[no-any-return]


# --- MXNet's .params ---

# Element type in the file -> NumPy's; bfloat16 (12) is omitted because NumPy does not have it.
TYPES = {
    0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?",
}  # fmt: skip


class _Words:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = memoryview(data), 0

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise InputError("the .params file is truncated or damaged")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form: str) -> Tuple[Any, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))


def read_all_params(data: bytes) -> Arrays:
    """Read every floating-point array of an MXNet ``.params`` file, of any shape and size.

    Raises
    ------
    InputError
        If the file is damaged or has another format.
    """
    if format_of(data) != "params":
        raise InputError("not an MXNet .params file")
    return {name: array for name, array in _named_params(data).items() if array.dtype.kind == "f"}


def _params(data: bytes) -> Arrays:
    arrays = _named_params(data)
    return {name: array for name, array in arrays.items() if _wanted(array.shape, array.dtype.kind)}


def _named_params(data: bytes) -> Arrays:
    """Read the arrays that ``mx.nd.save`` writes (legacy, V1, V2 and V3), without MXNet.

    ``mx.nd.load`` trusts the counts in the header, so a damaged file can exhaust the memory. This
    reader never allocates more than the size of the file.
    """
    words = _Words(data)
    _, _, count = words.unpack("QQQ")
    if count > len(data):
        raise InputError("the .params file is damaged: it is too short for its number of arrays")
    arrays = [_ndarray(words) for _ in range(count)]
    (named,) = words.unpack("Q")
    if named != count:
        raise InputError(f"the .params file contains {count} arrays but {named} names")
    names = []
    for _ in range(named):
        (length,) = words.unpack("Q")
        try:
            names.append(bytes(words.take(length)).decode("utf-8"))
        except UnicodeDecodeError:
            raise InputError("the .params file is damaged: a name is not valid UTF-8") from None
    if words.at != len(data):
        raise InputError("the .params file is damaged: data follow after the last name")
    if len(set(names)) != len(names):
        raise InputError("the .params file is damaged: two arrays have the same name")
    return dict(zip(names, arrays))


def _ndarray(words: _Words) -> np.ndarray:
    (magic,) = words.unpack("I")
    if magic in (NDARRAY_V2, NDARRAY_V3):
        (storage,) = words.unpack("i")
        if storage != 0:
            raise InputError("the .params file is damaged or contains a sparse array")
    if magic in (NDARRAY_V1, NDARRAY_V2, NDARRAY_V3):
        (dimensions,) = words.unpack("i")
        shape = words.unpack(f"{_dimensions(dimensions)}q")
    else:  # legacy: the first word is the number of dimensions
        shape = words.unpack(f"{_dimensions(magic)}I")
    _, _, element = words.unpack("iii")  # device type, device number, element type
    if element not in TYPES or min(shape) < 1:
        raise InputError("the .params file contains an array of an unsupported type or shape")
    item = np.dtype(TYPES[element])
    return np.frombuffer(words.take(_count(shape) * item.itemsize), dtype=item).reshape(shape)


def _dimensions(count: int) -> int:
    if not 1 <= count <= 8:
        raise InputError("the .params file is damaged or has an unknown version")
    return count


# --- readers that run in a separate process ---


def _hdf5(data: bytes) -> Arrays:
    import h5py

    arrays: Arrays = {}
    budget = _Budget()

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not _wanted(item.shape or (), item.dtype.kind):
            return
        if item.external or item.is_virtual:
            raise InputError(f"array {name!r} is stored in other files")
        budget.take(name, item.shape, item.dtype.itemsize)
        if item.chunks:
            grid = [-(-side // part) for side, part in zip(item.shape, item.chunks)]
            whole = item.id.get_num_chunks() == _count(grid)
        else:
            whole = item.id.get_storage_size() == _count(item.shape) * item.dtype.itemsize
        if not whole:  # HDF5 would fill in the missing values
            raise InputError(f"array {name!r} is incomplete")
        arrays[name] = item[()]

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(visit)  # does not follow links to other files
    return arrays


def _mat(data: bytes) -> Arrays:
    """Read a MatConvNet network: ``layers`` with ``name`` and ``weights`` (older: ``filters``)."""
    import scipy.io

    names = ["layers", "meta", "normalization", "net"]
    content = scipy.io.loadmat(
        io.BytesIO(data), variable_names=names, struct_as_record=False, squeeze_me=True
    )
    root: Any = content.get("net")
    layers = _entry(content, root, "layers")
    if layers is None:
        raise InputError("the .mat file has no 'layers', so it is not a MatConvNet network")
    arrays: Arrays = {}
    budget = _Budget()
    for layer in np.atleast_1d(layers):
        name = getattr(layer, "name", None)
        weights = getattr(layer, "weights", None)
        if weights is None and hasattr(layer, "filters"):
            weights = [layer.filters, getattr(layer, "biases", None)]
        if not isinstance(name, str) or weights is None or len(weights) < 2:
            continue
        for label, values in zip(("filters", "biases"), weights):
            values = np.asarray(values)
            if label == "biases":
                values = values.reshape(-1)
            if _wanted(values.shape, values.dtype.kind):
                key = f"layers/{name}/{label}"
                if key in arrays:
                    raise InputError(f"the .mat file contains {name!r} twice")
                budget.take(key, values.shape, values.dtype.itemsize)
                arrays[key] = values
    normalization = _entry(content, content.get("meta"), "normalization")
    mean = getattr(normalization, "averageImage", None)
    if mean is not None:
        mean = np.asarray(mean, dtype=np.float64)
        mean = mean.mean(axis=(0, 1)) if mean.ndim == 3 else mean
        if mean.shape != (3,):
            raise InputError("the averageImage of the .mat file is not an RGB colour")
        arrays["averageImage"] = mean
    return arrays


def _entry(content: Mapping[str, Any], parent: Any, name: str) -> Any:
    found = content.get(name)
    return found if found is not None else getattr(parent, name, None)


def _torch(data: bytes) -> Arrays:
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise InputError(
            f"the safe file reader of PyTorch {torch.__version__} has a known vulnerability:"
            " pip install 'torch>=2.6'"
        )
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InputError("the .pth file contains no named arrays")
    arrays: Arrays = {}
    budget = _Budget()
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor) or not isinstance(name, str):
            continue
        if not _wanted(tensor.shape, "f" if tensor.is_floating_point() else "i"):
            continue
        if tensor.layout != torch.strided:
            raise InputError(f"array {name!r} is sparse")
        single = tensor.dtype in (torch.float16, torch.bfloat16)
        budget.take(name, tensor.shape, 4 if single else tensor.element_size())
        arrays[name] = (tensor.float() if single else tensor).detach().contiguous().numpy()
    return arrays


def _safetensors(data: bytes) -> Arrays:
    import safetensors.numpy

    return {
        name: array
        for name, array in safetensors.numpy.load(data).items()
        if _wanted(array.shape, array.dtype.kind)
    }


FORMATS: Dict[str, Callable[[bytes], Arrays]] = {
    "params": _params,
    "npz": _npz,
    "hdf5": _hdf5,
    "mat": _mat,
    "torch": _torch,
    "safetensors": _safetensors,
}
NEEDS = {  # the module that a reader imports, and the command that installs it
    "hdf5": ("h5py", "pip install h5py"),
    "mat": ("scipy.io", "pip install scipy"),
    "torch": ("torch", "pip install 'torch>=2.6'"),
    "safetensors": ("safetensors.numpy", "pip install safetensors"),
}
SUFFIXES = {
    "hdf5": ".h5",
    "mat": ".mat",
    "torch": ".pth",
    "safetensors": ".safetensors",
}  # for messages

# Exit statuses of a reader's process.
READ, REFUSED = 0, 3
START = (
    "import sys; sys.path[:] = {path!r}; from fmi.sources import formats; formats.serve({kind!r})"
)


def _isolated(kind: str, data: bytes) -> Arrays:
    """Run a reader in a separate process; raise an InputError if it fails in any way."""
    status, answer, message = _spawn(kind, data)
    if status == READ:
        return _npz(answer)
    if status == REFUSED:
        raise InputError(message)
    if status == -signal.SIGALRM:
        raise InputError(f"the {SUFFIXES[kind]} file is damaged: reading it takes too long")
    raise InputError(f"the {SUFFIXES[kind]} file is damaged: its reader crashed (status {status})")


def _spawn(kind: str, data: bytes) -> Tuple[int, bytes, str]:
    """Run a reader's process; return its exit status, the arrays as .npz, and its message."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["HDF5_PLUGIN_PRELOAD"] = "::"  # disable filter plugins
    start = START.format(path=sys.path, kind=kind)
    done = subprocess.run(
        [sys.executable, "-c", start],
        input=data,
        capture_output=True,
        env=environment,
        check=False,
    )
    message = done.stderr.decode("utf-8", errors="replace").strip()
    return done.returncode, done.stdout, message.splitlines()[-1] if message else ""


def serve(kind: str) -> None:
    """Serve :func:`_isolated`: read a file from standard input, write .npz to standard output."""
    module, install = NEEDS[kind]
    try:
        importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        sys.stderr.write(f"{name}, which reads {SUFFIXES[kind]}, is not installed: {install}\n")
        sys.exit(REFUSED)
    data = sys.stdin.buffer.read()
    status, answer, message = answer_to(kind, data)
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()
    sys.stderr.write(f"{message}\n")
    sys.exit(status)


def answer_to(kind: str, data: bytes) -> Tuple[int, bytes, str]:
    """Read with limited resources; return exit status, arrays as .npz, and message.

    The limits remain in force for the rest of the process.
    """
    _limit(len(data))
    try:
        arrays = FORMATS[kind](data)
        return READ, _as_npz(arrays), ""
    except InputError as error:
        return REFUSED, b"", str(error)
    except MemoryError:
        problem = "it needs more memory than its size allows"
    except BaseException as error:  # a panic in a Rust reader is not an Exception
        problem = _first_line(error)
    return REFUSED, b"", f"the {SUFFIXES[kind]} file is damaged: {problem}"


def _limit(size: int) -> None:
    """Limit the memory and the time of this process to what a file of `size` bytes needs."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
        now = int(stream.read().split()[0]) * resource.getpagesize()
    most = now + 3 * size + TOTAL + (64 << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5 + (size >> 24))


def _as_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _first_line(error: BaseException) -> str:
    lines: List[str] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
