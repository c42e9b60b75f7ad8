"""Small networks and pictures for the tests, and the real ones where they are present."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmi import descent
from fmi.networks.topology import VGG19

FILTERS = (4, 5, 6, 7, 8)  # of each convolution of a block of the small network
CAFFE_MEAN = np.array([123.68, 116.779, 103.939])

os.environ["FMI_CTX"] = "cpu"  # the tests know what the CPU gives, whether or not there is a GPU


def pytest_configure(config):
    """Let pytest-xdist begin with the files that come first, some of which take minutes."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def random_arrays(filters=FILTERS, seed=3, gain=1.0):
    """He-initialised weights of all 16 convolutions, the first scaled to the 0-255 range."""
    random = np.random.RandomState(seed)
    arrays, channels = {}, 3
    for name in VGG19.convolutions:
        count = filters[int(name[4]) - 1]
        spread = gain * np.sqrt(2 / (9 * channels))
        arrays[f"{name}_weight"] = random.normal(0, spread, (count, channels, 3, 3))
        arrays[f"{name}_bias"] = random.normal(0, 0.5, count)
        channels = count
    return {key: value.astype(np.float32) for key, value in arrays.items()}


@pytest.fixture(autouse=True)
def store_folder(tmp_path_factory, monkeypatch):
    """A store for each test."""
    folder = tmp_path_factory.mktemp("store") / "store"
    monkeypatch.setenv("FMI_STORE", str(folder))
    return folder


@pytest.fixture(scope="session")
def arrays():
    return random_arrays()


@pytest.fixture(scope="session")
def small_weights(arrays, tmp_path_factory):
    """An .npz of a small network with all layers."""
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    np.savez(path, **arrays)
    return path


def smooth_picture(height, width, seed=0):
    """A coloured uint8 picture with structure at several scales."""
    random = np.random.RandomState(seed)
    small = Image.fromarray(random.randint(0, 256, (6, 8, 3), dtype=np.uint8))
    blurred = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    noisy = blurred + random.normal(0, 12, blurred.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture():
    return smooth_picture(36, 48)


@pytest.fixture(scope="session")
def style():
    return smooth_picture(40, 30, seed=1)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Small stand-ins under the names of the paper's six pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ["golden_gate", "tubingen", "frida_kahlo", "seated-nude", "starry_night", "the_scream"]
    for seed, name in enumerate(names):
        Image.fromarray(smooth_picture(42, 56, seed)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def descents(monkeypatch):
    """The number of pictures of each descent that is begun."""
    begun = []
    minimise = descent.minimise

    def counted(network, loss, *rest, **more):
        begun.append(loss.pictures)
        return minimise(network, loss, *rest, **more)

    monkeypatch.setattr(descent, "minimise", counted)
    return begun


@pytest.fixture(scope="session")
def init():
    """An initial picture of the size of `picture`."""
    return CAFFE_MEAN + np.random.RandomState(7).uniform(-20, 20, (36, 48, 3))


@pytest.fixture
def three_steps(small_weights, init):
    """Keywords of three steps on the small network."""
    return {
        "weights": small_weights,
        "init": init.astype(np.float32),
        "long_edge": 48,
        "steps": 3,
        "stop": 0,
        "progress": False,
    }


def ended(feature_map, how, at):
    """feature_map, whose call number `at` ends early: "interrupted" by Ctrl-C, or "diverged"."""
    calls = []

    def interrupt(state):
        if state.step == 3:
            raise KeyboardInterrupt

    def function(*arguments, **options):
        calls.append(None)
        if len(calls) == at and how == "interrupted":
            return feature_map(*arguments, **options, callback=interrupt)
        found = feature_map(*arguments, **options)
        if len(calls) == at:
            found[0].stopped = how
        return found

    return function


def _folder(variable):
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} names no folder with the real data")
    return Path(value)


@pytest.fixture
def real_pictures():
    return _folder("FMI_PICTURES")


@pytest.fixture
def real_weights():
    files = sorted(_folder("FMI_MODELS").glob("vgg19*"))
    if not files:
        pytest.skip("FMI_MODELS holds no vgg19* file")
    return files[0]


@pytest.fixture
def published_fig3():
    file = _folder("FMI_PUBLISHED") / "fig3_golden_gate.png"
    if not file.is_file():
        pytest.skip("FMI_PUBLISHED holds no fig3_golden_gate.png")
    return file
