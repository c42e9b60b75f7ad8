"""Every layout of VGG-19 gives the same codes; what is damaged is refused with one line."""

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import weight_files as files

from fmi.device.mxnet import context, mx
from fmi.errors import InputError
from fmi.networks import gluon, topology, vgg, weights
from fmi.networks import names as names_
from fmi.networks.topology import VGG19
from fmi.pictures import from_rgb
from fmi.sources import formats

LAYERS = ["relu1_1", "relu2_2"]


@pytest.fixture(scope="module")
def base():
    return files.vgg_arrays()


def codes(arrays, mean, picture, layers=LAYERS):
    found = vgg.truncated(VGG19, arrays, layers, "max", "up", context("cpu"))
    return {k: v.asnumpy() for k, v in found(mx.nd.array(from_rgb(picture, mean))).items()}


def relative(found, expected):
    return max(np.abs(found[k] - expected[k]).max() / np.abs(expected[k]).max() for k in expected)


def written(tmp_path, data, name="file"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", files.WRITERS)
def test_same_codes_in_every_layout(form, base, tmp_path, picture):
    write, kind, layout, package = files.WRITERS[form]
    pytest.importorskip(package)
    found = weights.read(written(tmp_path, write(base, tmp_path), "no_suffix_tells"))
    assert (found.format, found.layout.name) == (kind, layout)
    assert found.covers == VGG19.convolutions[:4]
    mean = 255 * files.ZOO_MEAN if layout == "zoo" else files.CAFFE_MEAN
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    expected = codes(base, mean, picture)
    assert relative(codes(found.arrays, found.mean, picture), expected) < 1e-5


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("names", ["structural", "prefixed"])
def test_gluon_own_network(norm, names, tmp_path, picture):
    """MXNet computes the codes from its own network, with BatchNorm and its own input scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mxnet.gluon.model_zoo import vision
    net = (vision.vgg19_bn if norm else vision.vgg19)()
    block = net.features[: 14 if norm else 10]  # to pool2
    block.initialize(mx.init.Xavier())
    unit = (picture / 255 - files.ZOO_MEAN) / files.ZOO_STD
    image = mx.nd.array(unit.transpose(2, 0, 1)[None])
    block(image)
    random = np.random.RandomState(1)
    for parameter in block.collect_params().values():
        kind = parameter.name.split("_")[-1]
        if kind in ("bias", "beta", "mean"):
            parameter.set_data(mx.nd.array(random.normal(0, 0.3, parameter.shape)))
        elif kind in ("gamma", "var"):
            parameter.set_data(mx.nd.array(random.uniform(0.5, 2, parameter.shape)))
    expected = {"pool2": block(image).asnumpy()}
    own = block._collect_params_with_prefix().items()
    saved = {
        f"features.{key}" if names == "structural" else parameter.name: parameter.data()
        for key, parameter in own
    }
    path = tmp_path / "gluon.params"
    mx.nd.save(str(path), saved)
    found = weights.read(path)
    assert found.covers == VGG19.convolutions[:4] and not found.layout.original
    result = codes(found.arrays, found.mean, picture, ["pool2"])
    assert relative(result, expected) < 1e-5


def test_batch_norm_of_pytorch(tmp_path, picture):
    """PyTorch computes the codes; torchvision's vgg19_bn has these modules and names."""
    torch = pytest.importorskip("torch")
    nn, modules, channels = torch.nn, [], 3
    for name in VGG19.convolutions[:4]:
        count = topology.FILTERS[int(name[4]) - 1]
        modules += [nn.Conv2d(channels, count, 3, padding=1), nn.BatchNorm2d(count), nn.ReLU()]
        modules += [nn.MaxPool2d(2)] if name == "conv1_2" else []
        channels = count
    net = nn.Sequential(*modules).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 2)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.3)
        unit = (picture / 255 - files.ZOO_MEAN) / files.ZOO_STD
        image = torch.from_numpy(unit.transpose(2, 0, 1)[None].astype(np.float32))
        expected = {"relu2_2": net(image).numpy()}
    path = tmp_path / "norm.pth"
    torch.save({f"features.{key}": value for key, value in net.state_dict().items()}, path)
    found = weights.read(path)
    assert found.covers == VGG19.convolutions[:4]
    assert relative(codes(found.arrays, found.mean, picture, ["relu2_2"]), expected) < 1e-5


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", [False, True])
def test_the_family_in_gluons_and_torchvisions_names(norm, depth):
    """All convolutions, and nothing else, are found among the names of whole networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mxnet.gluon.model_zoo import vision
    name = f"vgg{depth}{'_bn' if norm else ''}"
    net = vision.get_model(name)
    shapes = gluon._inferred(net(mx.sym.var("data")), net.collect_params(), name)
    structural = {n: p.name for n, p in net._collect_params_with_prefix().items()}
    kinds = [{n: shapes[p] for n, p in structural.items() if p in shapes}, shapes]
    with contextlib.suppress(ImportError):
        import torchvision.models

        state = getattr(torchvision.models, name)().state_dict()
        kinds.append({n: tuple(a.shape) for n, a in state.items() if a.is_floating_point()})
    for names in kinds:
        arrays = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
        _, member, named = names_.named_arrays(arrays)
        assert member.name == f"VGG-{depth}"
        kinds_of_array = 6 if norm else 2
        assert len(named) == kinds_of_array * len(member.convolutions)
        assert list(dict.fromkeys(place for place, _ in named)) == list(member.convolutions)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_family_in_the_fields_names(depth):
    member = next(m for m in topology.FAMILY if m.name == f"VGG-{depth}")
    named = {}
    for name in member.convolutions:
        named[f"{name}_weight"] = np.zeros((3, 3, 3, 3), np.float32)
        named[f"{name}_bias"] = np.zeros(3, np.float32)
    assert names_.named_arrays(named)[1] == member
    part = {n: a for n, a in named.items() if n < "conv3"}
    expected = "VGG-11" if depth == 11 else "VGG-19"  # part of it may be several: the deepest
    assert names_.named_arrays(part)[1].name == expected
    if depth == 19:  # a file with a gap is still VGG-19
        gap = {n: a for n, a in named.items() if not n.startswith("conv3_4")}
        assert names_.named_arrays(gap)[1].name == "VGG-19"


def test_a_model_of_blocks_in_keras_3():
    arrays = {}
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(count):
            place = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            filters = topology.FILTERS[block - 1]
            arrays[f"{place}/0"] = np.zeros((3, 3, 3, filters), np.float32)
            arrays[f"{place}/1"] = np.zeros(filters, np.float32)
    arrays["dsn1/vars/0"] = np.zeros((1, 1, 64, 1), np.float32)
    layout, member, named = names_.named_arrays(arrays)
    assert (layout.name, member.name, len(named)) == ("keras", "VGG-16", 26)
    assert named["conv3_3", "weight"] is arrays["block3/layers/conv2d_2/vars/0"]


@pytest.mark.parametrize("form", ["keras 2016", "params legacy", "params", "mat", "pth dotted"])
def test_real_blocks_through_other_layouts(form, real_weights, tmp_path, picture):
    write, _, _, package = files.WRITERS[form]
    pytest.importorskip(package)
    real = weights.read(real_weights)
    other = weights.read(written(tmp_path, write(dict(real.arrays), tmp_path)))
    expected = codes(real.arrays, real.mean, picture, ["relu3_4"])
    assert relative(codes(other.arrays, other.mean, picture, ["relu3_4"]), expected) < 1e-5


def test_half_precision_and_metadata(base, tmp_path):
    record = {"mean": [1.0, 2.0, 3.0]}
    half = {key: value.astype(np.float16) for key, value in base.items()}
    data = files.npz({**half, "metadata": np.array(json.dumps(record))})
    found = weights.read(written(tmp_path, data))
    assert found.mean == (1.0, 2.0, 3.0)
    for key, value in half.items():
        assert found.arrays[key].dtype == np.float32
        np.testing.assert_array_equal(found.arrays[key], value.astype(np.float32))


def test_axes_in_fortran_order(base, tmp_path):
    turned = {key: np.asfortranarray(value) for key, value in base.items()}
    found = weights.read(written(tmp_path, files.npz(turned)))
    np.testing.assert_array_equal(found.arrays["conv2_1_weight"], base["conv2_1_weight"])


def test_any_number_of_filters_under_the_field_names(arrays, tmp_path):
    found = weights.read(written(tmp_path, files.npz(arrays)))
    assert found.covers == VGG19.convolutions


def change_array(key, change):
    def made(base, _):
        return files.npz({**base, key: change(base[key])})

    return made


def spoil(value):
    def change(array):
        array = array.copy()
        array.flat[7] = value
        return array

    return change


def other_widths(base, _):
    named = files.numbered(files.zoo(base))
    named["features.7.weight"] = named["features.7.weight"][:100]
    named["features.7.bias"] = named["features.7.bias"][:100]
    return files.npz(named)


def params_count(count):
    def made(base, _):
        data = bytearray(files.params_legacy(base))
        data[16:24] = struct.pack("<Q", count)
        return bytes(data)

    return made


def params_twice(base, _):
    data = files.params_legacy(base)
    return data.replace(b"arg:conv1_2_bias", b"arg:conv1_1_bias")


def npz_twice(base, _):
    def double(name, content):
        return [(name, content)] * (2 if "conv1_1_bias" in name else 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return files.rezip(files.npz(base), double)


def npz_huge_shape(base, _):
    def change(name, content):
        if "conv1_1_weight" in name:
            content = content.replace(b"(64, 3, 3, 3), }  ", b"(6400000000, 3, 3,3)}")
            assert b"6400000000" in content
        return [(name, content)]

    return files.rezip(files.npz(base), change)


def npz_bomb(base, _):
    """300 kB that unpack to 315 MB, none of the arrays too large."""
    stream, head = io.BytesIO(), io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (512, 512, 3, 3)}
    np.lib.format.write_array_header_1_0(head, shape)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in VGG19.convolutions:
            content = head.getvalue() + bytes(8 * 512 * 512 * 9)
            archive.writestr(f"{name}_weight.npy", content)
    return stream.getvalue()


def npz_pickle(base, _):
    stream = io.BytesIO()
    np.savez(stream, conv1_1_weight=np.array([os.getpid, print], dtype=object))
    return stream.getvalue()


def norm_missing(base, _):
    named = {}
    for name, weight, bias in files.pairs(base):
        place = (0, 3, 7, 10)[VGG19.convolutions.index(name)]
        named[f"features.{place}.weight"], named[f"features.{place}.bias"] = weight, bias
    named["features.1.running_mean"] = np.zeros(64, np.float32)
    return files.npz(named)


REFUSED = {
    "empty": (lambda base, _: b"", "is empty"),
    "text": (lambda base, _: b"<html>404</html>", "text, not weights"),
    "lfs pointer": (lambda base, _: b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
    "noise": (lambda base, _: bytes(range(1, 200)), "unknown file format"),
    "matlab 7.3": (lambda base, _: b"MATLAB 7.3 MAT-file, Platform", "MATLAB 7.3 .*-v7"),
    "nan": (change_array("conv1_2_weight", spoil(np.nan)), "weight of conv1_2.*not finite"),
    "infinite": (change_array("conv2_1_bias", spoil(np.inf)), "bias of conv2_1.*not finite"),
    "too large for float32": (
        change_array("conv2_1_bias", lambda a: a.astype(np.float64) * 1e300),
        "bias of conv2_1.*not finite",
    ),
    "wrong shape": (change_array("conv1_2_weight", lambda a: a[:, :-1]), "conv1_2 has a weight"),
    "no bias": (
        change_array("conv1_2_bias", lambda a: a[None]),
        "of conv1_2 is missing|bias of shape",
    ),
    "two pixels": (change_array("conv1_2_weight", lambda a: a[..., :2]), "3 x 3 kernels"),
    "nothing": (lambda base, _: files.npz({"a": np.ones(3, np.float32)}), "no VGG network"),
    "other widths": (other_widths, "VGG network: conv2_2 has 100 filters, but VGG-19 has 128"),
    "batch norm missing": (norm_missing, "BatchNorm"),
    "params cut": (lambda base, _: files.params_legacy(base)[:-30], "truncated or damaged"),
    "params longer": (lambda base, _: files.params_legacy(base) + b"\0", "after the last name"),
    "params count": (params_count(1 << 60), "number of arrays"),
    "params count small": (params_count(7), "arrays but|truncated|damaged"),
    "params names twice": (params_twice, "same name"),
    "npz cut": (lambda base, _: files.npz(base)[:-40], "npz file is damaged"),
    "npz twice": (npz_twice, "twice"),
    "npz shape": (npz_huge_shape, "the weight or the bias of conv1_1 is missing"),
    "npz bomb": (npz_bomb, "too large for VGG-19: array 'conv"),
    "npz pickle": (npz_pickle, "no VGG network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_line(case, base, tmp_path):
    make, message = REFUSED[case]
    path = written(tmp_path, make(base, tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        weights.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_pth_with_code_is_not_run(legacy, base, tmp_path):
    torch = pytest.importorskip("torch")
    mark = tmp_path / "harm"
    stream = io.BytesIO()
    content = {"features.0.weight": torch.ones(2), "x": Harm(mark)}
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"\.pth file is damaged: UnpicklingError"):
        weights.read(written(tmp_path, stream.getvalue()))
    assert not mark.exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)["x"].close()
    assert mark.exists()  # the file can do harm


def test_npz_with_code_is_not_run(tmp_path):
    mark = tmp_path / "harm"
    data = files.npz({"conv1_1_weight": np.array([Harm(mark)], dtype=object)})
    with pytest.raises(InputError):
        weights.read(written(tmp_path, data))
    assert not mark.exists()


def test_hdf5_links_and_external_storage(base, tmp_path):
    """An .h5 file can point at any other file; none is opened."""
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(64, "<f4").tobytes())
    path = tmp_path / "external.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "block1_conv1/bias:0", (64,), "<f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(InputError, match="in other files"):
        weights.read(path)
    other = written(tmp_path, files.keras(base, tmp_path, "2016"), "other.h5")
    with h5py.File(path, "w") as file:
        file["block1_conv1"] = h5py.ExternalLink(str(other), "block1_conv1")
    with pytest.raises(InputError, match="no VGG network"):
        weights.read(path)


def test_hdf5_values_that_were_never_written(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "unwritten.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("block1_conv1/block1_conv1_W_1:0", (3, 3, 3, 64), "<f4")
        file["block1_conv1/block1_conv1_b_1:0"] = np.ones(64, np.float32)
    with pytest.raises(InputError, match="is incomplete"):
        weights.read(path)


def test_missing_package_is_named(base, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "safetensors.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.setattr(sys, "path", [str(hidden), *sys.path])
    path = written(tmp_path, files.safetensors(files.numbered(base)))
    with pytest.raises(InputError, match="safetensors.* not installed: pip install safetensors"):
        weights.read(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "its reader crashed"),
        ("hang", "takes too long"),
        ("greedy", "more memory"),
    ],
)
def test_reader_that_breaks_down_is_one_line(name, message, tmp_path):
    """A stand-in for h5py that crashes, hangs, or fills the memory when it opens a file."""
    deeds = {
        "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
        "hang": "signal.alarm(1)\n    while True: pass",
        "greedy": "bytearray(4 << 30)",
    }
    (tmp_path / "h5py.py").write_text(
        f"import os, signal\ndef File(*_):\n    {deeds[name]}\n", encoding="utf-8"
    )
    path = written(tmp_path, b"\x89HDF\r\n\x1a\n" + bytes(100))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from fmi.sources import formats\nfrom fmi.errors import InputError\n"
        "try: formats.read(open(sys.argv[1], 'rb').read())\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    assert message in done.stdout and done.stdout.count("\n") == 1


def test_reader_ignores_the_working_folder(base, tmp_path, monkeypatch):
    """A numpy.py beside a downloaded file is not imported."""
    pytest.importorskip("safetensors")
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    found = weights.read(written(tmp_path, files.safetensors(files.numbered(base))))
    assert found.covers


def test_limits_are_in_force():
    """The reader's process may have little more memory than it needs, and dies by an alarm."""
    code = (
        "import resource, signal\nfrom fmi.sources import formats\n"
        "alarms = []\nsignal.alarm = alarms.append\nformats._limit(1 << 20)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0], *alarms)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    limit, seconds = (int(word) for word in done.stdout.split())
    assert formats.TOTAL < limit < 1 << 30 and 0 < seconds <= 6
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL  # ours is untouched
