"""Atlases of dummy panels: of layers and filters of any number and name, without a network.

``python tests/atlas_dummies.py FOLDER`` writes one with all 5,504 filters of VGG-19's activations.
"""

import sys
from pathlib import Path

import numpy as np

from fmi.atlas import site
from fmi.atlas.contents import Contents, Shown
from fmi.inversion import Inversion
from fmi.networks.base import Layer
from fmi.networks.topology import VGG19

RECORD = {
    "function": "feature_map",
    "settings": {"preset": "code", "denoise": 0.0, "steps": 5},
    "network": {"name": "dummy"},
    "versions": {"fmi": "0"},
    "seed": 0,
    "precision": "float32",
}


def inversion(number, shape=(48, 64)):
    """A texture of stripes with noise that depends on a number alone."""
    random = np.random.RandomState(number)
    rows, columns = np.indices(shape)
    angle, length = random.uniform(0, np.pi), random.uniform(4, 20)
    wave = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / length)
    colours = random.uniform(-80, 80, 3)
    array = 128 + wave[..., None] * colours + random.normal(0, 12, (*shape, 3))
    share = float(random.uniform(0, 1))
    loss = list(np.geomspace(100, 1, 5))
    return Inversion(array.astype(np.float32), loss, 0.1, "steps", RECORD, 1.0, share, share)


def dummies(counts, pictures=("a",), missing=(), shape=(48, 64)):
    """Contents with a layer of each name and number of filters; keys in `missing` are not found."""
    layers = [
        Layer(name, "activation", n, 1, 5 + 8 * i, False) for i, (name, n) in enumerate(counts)
    ]
    picture = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    panels = {
        layer.name: {
            index: {label: f"{layer.name}:{index}:{label}" for label in pictures}
            for index in range(layer.channels)
        }
        for layer in layers
    }
    keys = [key for row in panels.values() for keys in row.values() for key in keys.values()]
    # Filters with even numbers have the same texture from each picture, the others have not.
    each = len(pictures)
    numbers = {key: n if n // each % 2 else n - n % each for n, key in enumerate(keys)}

    def find(key):
        return None if key in missing else inversion(numbers[key], shape)

    return Contents(
        title="Dummies",
        network={"name": "dummy"},
        layers=layers,
        pictures=[Shown(label, picture, repr(label)) for label in pictures],
        panels=panels,
        find=find,
        sweep="figure: sweep\n",
    )


def of_vgg19(shape=(96, 128)):
    """All filters of VGG-19's 16 activations: 5,504."""
    names = [name.replace("conv", "relu") for name in VGG19.convolutions]
    return dummies(
        [(name, (64, 128, 256, 512, 512)[int(name[4]) - 1]) for name in names], shape=shape
    )


if __name__ == "__main__":
    site.write(of_vgg19(), Path(sys.argv[1]))
