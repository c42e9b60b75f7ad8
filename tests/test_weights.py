"""Which weights are taken, what is said about them, and `fmi weights`."""

import hashlib
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import weight_files as files

from fmi import cli, invert
from fmi.errors import InputError
from fmi.networks import report, topology, vgg, weights
from fmi.networks.topology import VGG19
from fmi.sources import table


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two named folders, no others, and a package without an embedded network."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.setenv("FMI_MODELS", f"{first}:{second}")
    monkeypatch.setattr(table, "_checkout", lambda kind: None)
    monkeypatch.setattr(table, "_cache", lambda kind: tmp_path / "cache" / kind)
    monkeypatch.setattr(weights, "embedded_path", lambda: tmp_path / "embedded.npz")
    weights._warn.cache_clear()
    weights._read.cache_clear()
    return tmp_path


@pytest.fixture
def register(monkeypatch):
    """The table, with the digests of files that a test writes."""
    known = table.models()
    monkeypatch.setattr(table, "models", lambda: dict(known))

    def add(name, path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known[name] = replace(known[name], digest=f"sha256:{digest}", size=path.stat().st_size)
        assert known[name].file == path.name
        return digest

    return add


def save(path, blocks=2, seed=5, writer=None):
    arrays = files.vgg_arrays(blocks, seed)
    path.write_bytes(writer(arrays) if writer else files.npz(arrays))
    return path


def embedded(place, filters=(4, 5, 6, 7, 8)):
    arrays, channels = {}, 3
    random = np.random.RandomState(0)
    for name in VGG19.convolutions:
        count = filters[int(name[4]) - 1]
        arrays[f"{name}_weight"] = random.normal(0, 0.2, (count, channels, 3, 3)).astype("f2")
        arrays[f"{name}_bias"] = random.normal(0, 1, count).astype("f2")
        channels = count
    text = json.dumps({"trained_on": "a stand-in"})
    np.savez(place / "embedded.npz", **arrays, metadata=np.array(text))


def zoo_params(arrays):
    return files.ndarray_list(files.prefixed(files.zoo(arrays)))


def test_nothing_at_all(place):
    for name in ("auto", "vgg19"):
        with pytest.raises(InputError, match=r"of VGG-19 \(vgg19\.params\)") as caught:
            weights.load(name, ["relu1_1"])
        text = str(caught.value)
        assert "fmi weights fetch vgg19" in text and "embedded" in text and "--weights" in text
        assert all(str(place / folder) in text for folder in ("first", "second", "cache"))


def test_verified_before_unknown(place, register, caplog):
    save(place / "first" / "vgg19_mine.npz", seed=1)
    digest = register("vgg19", save(place / "second" / "vgg19.params", writer=files.params_legacy))
    for name in ("auto", "vgg19"):
        found = weights.load(name, ["relu2_2"])
        assert (found.source, found.verified, found.sha256) == ("vgg19", True, digest)
    assert found.describe()["source"] == "vgg19" and found.describe()["verified"] is True
    assert not found.embedded and caplog.text == ""


def test_a_renamed_file_is_known_by_its_digest(place, register, caplog):
    path = save(place / "first" / "vgg19.params", writer=files.params_legacy)
    register("vgg19", path)
    found = weights.load(path.rename(place / "renamed.bin"), ["relu1_1"])
    assert found.verified and caplog.text == ""


def test_unknown_digest_is_used_with_one_warning(place, caplog):
    path = save(place / "first" / "vgg19_mine.npz")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for _ in range(3):
        found = weights.load("auto", ["relu2_2"])
    assert (found.source, found.verified, found.sha256) == (None, False, digest)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.name == "fmi.networks.weights"
    assert record.getMessage().startswith(f"{path}: ") and digest in record.getMessage()


def test_digest_goes_into_the_settings_of_a_result(place, picture):
    path = save(place / "vgg19_mine.npz", blocks=1)
    result = invert.code(picture, "relu1_1", weights=path, long_edge=24, steps=1, progress=False)
    recorded = result.record["network"]
    assert recorded["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recorded["verified"] is False and recorded["embedded"] is False


def test_damaged_file_of_a_known_name_is_not_used(place, register, caplog):
    path = save(place / "first" / "vgg19.params", writer=files.params_legacy)
    register("vgg19", path)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1  # one bit of a weight: it reads without an error
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"vgg19\.params is damaged: its sha256 is"):
        weights.load("vgg19", ["relu1_1"])
    embedded(place)
    assert weights.load("auto", ["relu1_1"]).embedded
    assert "is damaged" in caplog.text
    other = save(place / "second" / "vgg19_other.npz")
    assert weights.load("auto", ["relu1_1"]).path == other


def test_embedded(place, caplog):
    embedded(place)
    found = weights.load("auto", ["relu5_4"])
    assert found.embedded and not found.verified and found.describe()["embedded"] is True
    assert found.arrays["conv1_1_weight"].dtype == np.float32
    weights.load("auto", ["relu5_4"])
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "using the small embedded network, not VGG-19: no weights of VGG-19"
    )
    assert "\n" not in record.getMessage()
    caplog.clear()
    assert weights.load("embedded", ["relu5_4"]).sha256 == found.sha256
    assert caplog.text == ""  # it was asked for
    with pytest.raises(InputError, match="no weights of VGG-19"):
        weights.load("vgg19", ["relu1_1"])


def test_embedded_is_not_there(place):
    with pytest.raises(InputError, match=r"embedded network .*embedded\.npz is missing"):
        weights.load("embedded", ["relu1_1"])


def test_layers_that_the_file_lacks(place, caplog):
    path = save(place / "first" / "vgg19_blocks.npz")
    with pytest.raises(InputError, match="lacks conv3_1, .* need conv1_1 to"):
        weights.load("vgg19", ["relu1_1", "relu3_1"])
    with pytest.raises(InputError, match="lacks conv3_1"):
        weights.load(path, ["relu3_1"])
    embedded(place)
    assert weights.load("auto", ["relu3_1"]).embedded
    assert "lacks conv3_1" in caplog.text
    assert weights.load("auto", ["relu2_1"]).path == path


def test_network_trained_anew(place, register, caplog):
    path = place / "first" / "vgg19-ad2f660d.params"
    register("vgg19-gluon", save(path, writer=zoo_params))
    with pytest.raises(InputError, match="no weights of VGG-19"):
        weights.load("vgg19", ["relu1_1"])  # these are not the weights of 2014
    found = weights.load("vgg19-gluon", ["relu1_1"])
    assert found.verified and found.source == "vgg19-gluon"
    (message,) = caplog.messages
    assert message.startswith(f"{path}: retrained network") and "published Fig. 3" in message
    embedded(place)
    assert weights.load("auto", ["relu1_1"]).source == "vgg19-gluon"


def test_known_digest_decides_the_layout(place, register):
    """J. Johnson's .pth has torchvision's names, and Caffe's input."""
    pytest.importorskip("torch")
    arrays = files.vgg_arrays()
    path = place / "first" / "vgg19-d01eb7cb.pth"
    path.write_bytes(files.pth(files.numbered(files.bgr(arrays))))
    assert weights.read(path).layout.name == "zoo"
    register("vgg19-caffe-pth", path)
    weights._read.cache_clear()
    found = weights.load("vgg19", ["relu2_2"])
    assert found.layout.name == "caffe-bgr" and found.mean == files.CAFFE_MEAN
    np.testing.assert_array_equal(found.arrays["conv1_1_weight"], arrays["conv1_1_weight"])


def test_named_source(place, register):
    with pytest.raises(InputError, match="fmi weights fetch vgg19-keras"):
        weights.load("vgg19-keras", ["relu1_1"])
    path = place / "first" / table.models()["vgg19-gluon"].file
    save(path, writer=zoo_params)
    with pytest.raises(InputError, match="digest of vgg19-gluon .*fmi weights fetch vgg19-gluon"):
        weights.load("vgg19-gluon", ["relu1_1"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg91", "unknown weights 'vgg91'; did you mean vgg19"),
        ("missing.npz", r"weights missing\.npz cannot be read: No such file"),
        ("..", r"\.\. is not a file"),
        ("a\0b.npz", "cannot be read: embedded null byte"),
    ],
)
def test_wrong_names(name, message, place):
    with pytest.raises(InputError, match=message):
        weights.load(name, ["relu1_1"])


def test_file_that_changes_is_read_again(place):
    path = save(place / "a.npz", seed=1)
    first = weights.read(path)
    assert weights.read(path) is first
    save(path, seed=2)
    assert weights.read(path).sha256 != first.sha256


def test_arrays_cannot_be_changed(place):
    found = weights.read(save(place / "a.npz"))
    with pytest.raises(ValueError, match="read-only"):
        found.arrays["conv1_1_weight"][0] = 0


def test_convert_keeps_the_network(place):
    path = save(place / "zoo.params", writer=zoo_params)
    before = weights.read(path)
    after = report.convert(path, place / "out" / "converted.npz")
    assert after.mean == before.mean and after.mean != files.CAFFE_MEAN
    for key, array in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[key], array)
    with np.load(place / "out" / "converted.npz") as content:
        record = json.loads(str(content["metadata"]))
    assert record["converted_from"] == {"name": "zoo.params", "sha256": before.sha256}
    assert record["layout"] == "zoo"
    with pytest.raises(InputError, match=r"out\.h5: .*\.npz"):
        report.convert(path, place / "out.h5")


def gatys_scaled(arrays, picture):
    """As Gatys et al. did: divide each filter by its mean activation, mend the next layer."""
    from fmi.device.mxnet import context, mx
    from fmi.pictures import from_rgb

    scaled, previous = {}, np.ones(3)
    names = [n for n in VGG19.convolutions if f"{n}_weight" in arrays]
    network = vgg.truncated(
        VGG19, arrays, [n.replace("conv", "relu") for n in names], "max", "up", context("cpu")
    )
    found = network(mx.nd.array(from_rgb(picture, files.CAFFE_MEAN)))
    for name in names:
        means = found[name.replace("conv", "relu")].mean(axis=(0, 2, 3)).asnumpy() + 1e-3
        weight = arrays[f"{name}_weight"] * previous[None, :, None, None]
        scaled[f"{name}_weight"] = (weight / means[:, None, None, None]).astype(np.float32)
        scaled[f"{name}_bias"] = (arrays[f"{name}_bias"] / means).astype(np.float32)
        previous = means
    return scaled


def test_original_and_normalised_weights_are_told_apart(real_weights, place):
    from skimage import data

    real = weights.read(real_weights)
    assert "not normalised" in report.report(real)
    path = place / "normalised.npz"
    path.write_bytes(files.npz(gatys_scaled(dict(real.arrays), data.coffee()[:200, :300])))
    text = report.report(weights.read(path))
    assert "normalised as by Gatys et al." in text and "not normalised" not in text


def run(*arguments):
    level = logging.getLogger().level
    try:
        return cli.main(["weights", *map(str, arguments)])
    finally:
        logging.getLogger().setLevel(level)


def test_command_show(place, capsys):
    path = save(place / "zoo.params", writer=zoo_params)
    assert run("show", path) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"sha256    {digest}\nsource    unknown digest\nformat    params\nlayout    zoo\n" in out
    assert "RGB scaled to 0-1, minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)" in out
    assert "used as   RGB 0-255 minus (123.675, 116.280, 103.530)" in out
    assert "layers    conv1_1 to conv2_2 (4 of 16)" in out and "retrained" in out
    arrays = weights.read(path).arrays
    line = next(line for line in out.splitlines() if line.startswith("conv2_1")).split()
    assert line[1] == "128" and float(line[3]) == pytest.approx(
        arrays["conv2_1_weight"].std(), rel=1e-3
    )


def test_command_list_and_verify(place, register, capsys):
    register("vgg19", save(place / "first" / "vgg19.params", writer=files.params_legacy))
    mine = save(place / "first" / "vgg19_mine.npz")
    assert run("list") == 0
    out = capsys.readouterr().out
    assert f"ok: {place / 'first' / 'vgg19.params'}" in out
    assert f"{mine}: unknown digest" in out and "CC BY 4.0" in out and "missing" in out
    assert all(name in out for name in table.models())
    assert run("verify") == 0
    out = capsys.readouterr().out
    assert "vgg19.params: vgg19, ok" in out and f"{mine}: unknown digest" in out
    (place / "second" / "vgg19-ad2f660d.params").write_bytes(b"cut")
    assert run("verify") == 2
    assert "vgg19-ad2f660d.params: " in capsys.readouterr().out


def test_command_convert_and_errors(place, capsys):
    path = save(place / "a.params", writer=files.params_legacy)
    assert run("convert", path, place / "b.npz") == 0
    digest = hashlib.sha256((place / "b.npz").read_bytes()).hexdigest()
    assert capsys.readouterr().out == f"{place / 'b.npz'}: sha256 {digest}\n"
    assert run("show", place / "none.npz") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("fmi: weights ")


def test_a_copy_of_the_embedded_network_is_known_by_its_digest(tmp_path):
    copy = tmp_path / "vgg19_mine.npz"
    copy.write_bytes(weights.embedded_path().read_bytes())
    assert weights.read(copy).embedded


def test_auto_takes_photographs_before_the_embedded_network(place, register, caplog):
    """vgg16-hed serves where there is no VGG-19 and it has the layers; else the embedded one."""
    path = place / "first" / table.models()["vgg16-hed"].file
    arrays = {}
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(count):
            name = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            before = 3 if (block, index) == (1, 0) else topology.FILTERS[block - 1 - (index == 0)]
            filters = topology.FILTERS[block - 1]
            arrays[f"{name}/0"] = np.ones((3, 3, before, filters), np.float32)
            arrays[f"{name}/1"] = np.zeros(filters, np.float32)
    path.write_bytes(files.npz(arrays))
    register("vgg16-hed", path)
    embedded(place)
    found = weights.load("auto", ["relu3_3"])
    assert found.source == "vgg16-hed" and found.topology.name == "VGG-16"
    assert found.mean == (122.67892, 116.66877, 104.00699) and found.layout.channels == "BGR"
    assert "using vgg16-hed" in caplog.text
    assert weights.load("auto", ["relu3_4"]).embedded  # VGG-16 has none
    save(place / "second" / "vgg19_other.npz", blocks=3)
    assert weights.load("auto", ["relu3_3"]).name == "vgg19_other"
