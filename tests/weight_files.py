"""Writers of VGG-19 weights in every layout that fmi reads, from one set of weights."""

import io
import struct
import zipfile

import numpy as np

from fmi.networks import topology
from fmi.networks.topology import VGG19

CAFFE_MEAN = (123.68, 116.779, 103.939)
ZOO_MEAN = np.array([0.485, 0.456, 0.406])
ZOO_STD = np.array([0.229, 0.224, 0.225])
DENSE = True  # whether dense layers are written where a layout has them
MODULES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)  # torchvision's vgg19


def vgg_arrays(blocks=2, seed=5):
    """Random weights of VGG-19's own widths, the first blocks only; RGB, 0-255 minus mean."""
    random = np.random.RandomState(seed)
    arrays, channels = {}, 3
    for name in VGG19.convolutions:
        if int(name[4]) > blocks:
            break
        count = topology.FILTERS[int(name[4]) - 1]
        spread = np.sqrt(2 / (9 * channels))
        arrays[f"{name}_weight"] = random.normal(0, spread, (count, channels, 3, 3))
        arrays[f"{name}_bias"] = random.normal(0, 1, count)
        channels = count
    return {key: value.astype(np.float32) for key, value in arrays.items()}


def pairs(arrays):
    """Convolution, kernel, bias."""
    for name in VGG19.convolutions:
        if f"{name}_weight" in arrays:
            yield name, arrays[f"{name}_weight"], arrays[f"{name}_bias"]


def bgr(arrays):
    first = np.ascontiguousarray(arrays["conv1_1_weight"][:, ::-1])
    return {**arrays, "conv1_1_weight": first}


def zoo(arrays):
    """For input (x / 255 - mean) / std."""
    scale = (255 * ZOO_STD)[None, :, None, None]
    first = (arrays["conv1_1_weight"] * scale).astype(np.float32)
    return {**arrays, "conv1_1_weight": first}


def hwio(weight):
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def numbered(arrays):
    """torchvision's names."""
    named = {}
    for name, weight, bias in pairs(arrays):
        module = MODULES[VGG19.convolutions.index(name)]
        named[f"features.{module}.weight"] = weight
        named[f"features.{module}.bias"] = bias
    return named


def ndarray_list(arrays):
    """MXNet's list of arrays before version 1.0: 32-bit shapes."""
    out = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        out.append(struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape))
        out += [struct.pack("<iii", 1, 0, 0), array.astype("<f4").tobytes()]
    out.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        out += [struct.pack("<Q", len(name)), name.encode()]
    return b"".join(out)


def npz(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npz_compressed(arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def params_legacy(arrays):
    return ndarray_list({f"arg:{key}": value for key, value in arrays.items()})


def _mxnet_saved(arrays, folder):
    from fmi.device.mxnet import mx

    path = folder / "saved.params"
    mx.nd.save(str(path), {key: mx.nd.array(value) for key, value in arrays.items()})
    return path.read_bytes()


def hdf5(named, folder):
    import h5py

    path = folder / "saved.h5"
    with h5py.File(path, "w") as file:
        for key, value in named.items():
            file[key] = value
    return path.read_bytes()


def keras(arrays, folder, form):
    named = {}
    for index, (name, weight, bias) in enumerate(pairs(bgr(arrays))):
        layer = f"block{name[4]}_conv{name[6]}"
        kernel, offset = {
            "2016": (f"{layer}/{layer}_W_1:0", f"{layer}/{layer}_b_1:0"),
            "2": (
                f"model_weights/{layer}/{layer}/kernel:0",
                f"model_weights/{layer}/{layer}/bias:0",
            ),
            "3": tuple(
                f"layers/conv2d{f'_{index}' if index else ''}/vars/{part}" for part in (0, 1)
            ),
        }[form]
        named[kernel], named[offset] = hwio(weight), bias
    if form == "2":
        named["optimizer_weights/Adam/m/block1_conv1/kernel:0"] = hwio(weight)
    return hdf5(named, folder)


def pth(named, legacy=False):
    import torch

    tensors = {key: torch.from_numpy(value.copy()) for key, value in named.items()}
    stream = io.BytesIO()
    torch.save(tensors, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def safetensors(named):
    import safetensors.numpy

    return safetensors.numpy.save(named)


def mat(arrays, old=False, compress=False):
    import scipy.io

    layers = []
    for name, weight, bias in pairs(arrays):
        layer = {"name": name, "type": "conv"}
        if old:
            layer.update(filters=hwio(weight), biases=bias[None])
        else:
            both = np.empty(2, dtype=object)
            both[:] = [hwio(weight), bias[:, None]]
            layer["weights"] = both
        layers += [layer, {"name": name.replace("conv", "relu"), "type": "relu"}]
    dense = np.empty(2, dtype=object)
    dense[:] = [np.ones((7, 7, 16, 4096), np.float32), np.ones((4096, 1), np.float32)]
    if DENSE and not old:
        layers.append({"name": "fc6", "type": "conv", "weights": dense})
    cells = np.empty(len(layers), dtype=object)
    cells[:] = layers
    normalization = {"averageImage": np.reshape(CAFFE_MEAN, (1, 1, 3))}
    inside = {"normalization": normalization}
    content = {"layers": cells, **(inside if old else {"meta": inside})}
    stream = io.BytesIO()
    scipy.io.savemat(stream, content, do_compression=compress)
    return stream.getvalue()


def with_dense(named):
    """timm's first dense layer is a convolution, larger than all others together."""
    if not DENSE:
        return named
    return {
        **named,
        "pre_logits.fc1.weight": np.ones((4096, 32, 7, 7), np.float32),
        "classifier.0.weight": np.ones((6, 4), np.float32),
        "classifier.0.bias": np.ones(6, np.float32),
    }


# Layout -> (writer from arrays and a folder, format, layout's name, package that it needs)
WRITERS = {
    "npz": (lambda a, _: npz(a), "npz", "caffe", "numpy"),
    "npz compressed": (lambda a, _: npz_compressed(a), "npz", "caffe", "numpy"),
    "npz, torchvision's names": (lambda a, _: npz(numbered(zoo(a))), "npz", "zoo", "numpy"),
    "params legacy": (lambda a, _: params_legacy(a), "params", "caffe", "numpy"),
    "params": (
        lambda a, f: _mxnet_saved({f"arg:{k}": v for k, v in a.items()}, f),
        "params",
        "caffe",
        "numpy",
    ),
    "params structural": (
        lambda a, f: _mxnet_saved(numbered(zoo(a)), f),
        "params",
        "zoo",
        "numpy",
    ),
    "params prefixed": (
        lambda a, f: _mxnet_saved(prefixed(zoo(a)), f),
        "params",
        "zoo",
        "numpy",
    ),
    "keras 2016": (lambda a, f: keras(a, f, "2016"), "hdf5", "keras", "h5py"),
    "keras 2": (lambda a, f: keras(a, f, "2"), "hdf5", "keras", "h5py"),
    "keras 3": (lambda a, f: keras(a, f, "3"), "hdf5", "keras", "h5py"),
    "pth": (lambda a, _: pth(with_dense(numbered(zoo(a)))), "torch", "zoo", "torch"),
    "pth legacy": (lambda a, _: pth(numbered(zoo(a)), legacy=True), "torch", "zoo", "torch"),
    "pth dotted": (
        lambda a, _: pth({k.replace("_w", ".w").replace("_b", ".b"): v for k, v in bgr(a).items()}),
        "torch",
        "caffe-bgr",
        "torch",
    ),
    "safetensors": (
        lambda a, _: safetensors(numbered(zoo(a))),
        "safetensors",
        "zoo",
        "safetensors",
    ),
    "safetensors timm": (
        lambda a, _: safetensors(with_dense(numbered(zoo(a)))),
        "safetensors",
        "zoo",
        "safetensors",
    ),
    "mat": (lambda a, _: mat(a), "mat", "matconvnet", "scipy"),
    "mat compressed": (lambda a, _: mat(a, compress=True), "mat", "matconvnet", "scipy"),
    "mat old": (lambda a, _: mat(a, old=True), "mat", "matconvnet", "scipy"),
}


def prefixed(arrays):
    """Gluon's names."""
    named = {}
    for index, (_, weight, bias) in enumerate(pairs(arrays)):
        named[f"vgg0_conv{index}_weight"], named[f"vgg0_conv{index}_bias"] = weight, bias
    return named


def rezip(data, change):
    """A .zip written again, each member as `change(name, content)` returns it (None: left out)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            for name, content in change(info.filename, old.read(info)):
                new.writestr(name, content)
    return out.getvalue()
