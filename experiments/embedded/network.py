"""The small VGG-19: its training form with batch normalisation, and its folded form as arrays.

Folded weights are a dictionary from ``conv1_1_weight`` (O, I, 3, 3) and ``conv1_1_bias`` (O,) to
``conv5_4_bias``. They take RGB on the 0-255 scale minus :data:`experiments.embedded.dataset.MEAN`.
The functions on folded weights are pure: they return new arrays.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from experiments.embedded.dataset import SCALE
from fmi.device.mxnet import mx

REPEATS = (2, 2, 4, 4, 4)  # convolutions in the five blocks of VGG-19
HEADS = (2, 3, 4)  # blocks (counted from 0) with a classifier: relu3_4, relu4_4, relu5_4
MOMENTUM = 0.98  # of the running statistics
WATCHED = (2, 3, 4)  # blocks whose filters shall be active on a plain picture

Weights = Dict[str, np.ndarray]


def layer_names(repeats: Sequence[int] = REPEATS) -> List[str]:
    """``conv1_1`` ... ``conv5_4``."""
    return [f"conv{b}_{i}" for b, n in enumerate(repeats, 1) for i in range(1, n + 1)]


class Convolution(mx.gluon.HybridBlock):
    """A convolution 3x3 without a bias, padded by 1."""

    side = 3  # of the parameter

    def __init__(self, inputs: int, outputs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(outputs, inputs, self.side, self.side))

    @staticmethod
    def kernel(F: Any, weight: Any) -> Any:
        """The kernel (O, I, 3, 3) that the parameter stands for."""
        del F
        return weight

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        """(B, I, H, W) -> (B, O, H, W)."""
        kernel = self.kernel(F, weight)
        return F.Convolution(
            x, kernel, kernel=(3, 3), pad=(1, 1), num_filter=self.outputs, no_bias=True
        )


class SmoothConvolution(Convolution):
    """A convolution 3x3 whose kernels are kernels 2x2 after a mean over 2x2 pixels.

    It is blind to patterns that alternate from pixel to pixel, and its gradient for the picture is
    smoothed in the same way: without that, the descent of feature map inversion, which clips the
    gradient, fills pictures with such patterns.
    """

    side = 2

    @staticmethod
    def kernel(F: Any, weight: Any) -> Any:
        """(O, I, 2, 2) -> (O, I, 3, 3)."""
        corners = [(0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0)]
        padded = [
            F.pad(weight, mode="constant", pad_width=(0, 0, 0, 0, *corner)) for corner in corners
        ]
        return F.add_n(*padded) / 4


class Unit(mx.gluon.HybridBlock):
    """Convolution, batch normalisation to unit variance, then minus a threshold, then relu.

    Gamma is 1 and beta is minus the threshold, neither is learned: over the training pictures all
    filters of a layer are active about equally often, and none can die.
    """

    def __init__(self, inputs: int, outputs: int, smooth: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            kind = SmoothConvolution if smooth else Convolution
            self.conv = kind(inputs, outputs)
            self.norm = mx.gluon.nn.BatchNorm(momentum=MOMENTUM, scale=False, in_channels=outputs)
            self.norm.beta.grad_req = "null"

    def hybrid_forward(self, F: Any, x: Any) -> Tuple[Any, Any]:
        """(B, I, H, W) -> what the relu receives and what it gives, (B, O, H, W) each."""
        before = self.norm(self.conv(x))
        return before, F.Activation(before, act_type="relu")


def classifier(channels: int, classes: int) -> mx.gluon.HybridBlock:
    """A linear classifier on normalised means over space: (B, C, H, W) -> (B, classes)."""
    small = mx.init.Normal(0.01)
    head = mx.gluon.nn.HybridSequential()
    head.add(
        mx.gluon.nn.GlobalAvgPool2D(),
        mx.gluon.nn.BatchNorm(momentum=MOMENTUM, center=False, scale=False, in_channels=channels),
        mx.gluon.nn.Dense(classes, in_units=channels, weight_initializer=small),
    )
    return head


class TextureNet(mx.gluon.HybridBlock):
    """VGG-19's 16 convolutions, average pooling, and a linear classifier on each of :data:`HEADS`.

    Parameters
    ----------
    classes
        Number of texture classes.
    channels
        Width of each of the five blocks.
    margin
        Wanted on a plain picture, in standard deviations over the training pictures.
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int],
        margin: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.margin = margin
        self.blocks: List[List[Unit]] = []
        self.heads: List[Any] = []
        with self.name_scope():
            inputs = 3
            for b, (count, outputs) in enumerate(zip(REPEATS, channels), 1):
                units = []
                for i in range(1, count + 1):
                    first = b == i == 1
                    units.append(Unit(inputs, outputs, smooth=first, prefix=f"conv{b}_{i}_"))
                    inputs = outputs
                self.blocks.append(units)
                self.register_children(units)
            for block in HEADS:
                self.heads.append(classifier(channels[block], classes))
            self.register_children(self.heads)

    def set_thresholds(self, thresholds: Sequence[float], first: Sequence[float]) -> None:
        """Set the threshold of each of the five blocks, and that of its first relu."""
        for units, threshold, of_first in zip(self.blocks, thresholds, first):
            for i, unit in enumerate(units):
                value = -threshold if i else -of_first
                unit.norm.beta.set_data(mx.nd.full(unit.norm.beta.shape, value))

    def register_children(self, blocks: Sequence[Any]) -> None:
        """Register blocks that are kept in lists."""
        for block in blocks:
            self.register_child(block)

    def hybrid_forward(self, F: Any, x: Any) -> List[Any]:
        """Logits, and how far deep filters are from being active on a plain picture.

        The descent of feature map inversion starts at a plain picture: a filter that is silent
        there has no gradient, and its picture stays as plain as it was.

        Parameters
        ----------
        F
            ``mx.nd`` or ``mx.sym``.
        x
            Pictures (B, 3, H, W), the last one plain.

        Returns
        -------
        list
            Logits (B, classes) of every head, the deepest last; then silence (1,): for each relu of
            the blocks :data:`WATCHED`, the part of ``margin`` that is missing in the mean over the
            plain picture of what it receives, averaged over filters and layers.
        """
        logits, silence = [], []
        heads = dict(zip(HEADS, self.heads))
        for b, units in enumerate(self.blocks):
            if b:
                x = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
            for unit in units:
                before, x = unit(x)
                if b in WATCHED:
                    plain = F.slice_axis(before, axis=0, begin=-1, end=None)
                    missing = F.relu(self.margin - F.mean(plain, axis=(0, 2, 3)))
                    silence.append(F.mean(missing, keepdims=True))
            if b in heads:
                logits.append(heads[b](x))
        return [*logits, F.add_n(*silence) / len(silence)]

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """relu5_4 of pictures (B, 3, H, W), with the running statistics: (B, C, h, w)."""
        x = mx.nd.array(pictures)
        for b, units in enumerate(self.blocks):
            if b:
                x = mx.nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
            for unit in units:
                _, x = unit(x)
        return x.asnumpy()


def fold(net: TextureNet) -> Weights:
    """Fold batch normalisation and the input's scale into the convolutions: float32 arrays."""
    weights: Weights = {}
    units = [unit for block in net.blocks for unit in block]
    for name, unit in zip(layer_names(), units):
        norm = unit.norm
        mean, variance, beta = (
            parameter.data().asnumpy().astype(np.float64)
            for parameter in (norm.running_mean, norm.running_var, norm.beta)
        )
        gain = 1 / np.sqrt(variance + norm._kwargs["eps"])
        kernel = unit.conv.kernel(mx.nd, unit.conv.weight.data()).asnumpy().astype(np.float64)
        scale = float(SCALE) if name == "conv1_1" else 1.0
        weights[name + "_weight"] = (kernel * gain[:, None, None, None] * scale).astype(np.float32)
        weights[name + "_bias"] = (beta - gain * mean).astype(np.float32)
    return weights


def codes(weights: Mapping[str, np.ndarray], pictures: np.ndarray) -> Dict[str, np.ndarray]:
    """Activations after every convolution's relu.

    Parameters
    ----------
    weights
        Folded weights of any width; the walk ends at the first layer that is not there.
    pictures
        (B, 3, H, W) RGB on the 0-255 scale minus the mean colour.

    Returns
    -------
    dict
        ``conv1_1`` ... to (B, C, h, w) float32.
    """
    x = mx.nd.array(pictures)
    found = {}
    for name in layer_names():
        if name + "_weight" not in weights:
            break
        if name.endswith("_1") and name != "conv1_1":
            x = mx.nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
        kernel = mx.nd.array(weights[name + "_weight"].astype(np.float32))
        bias = mx.nd.array(weights[name + "_bias"].astype(np.float32))
        outputs = kernel.shape[0]
        x = mx.nd.Convolution(x, kernel, bias, kernel=(3, 3), pad=(1, 1), num_filter=outputs)
        x = mx.nd.relu(x)
        found[name] = x.asnumpy()
    return found


def mean_activations(
    weights: Mapping[str, np.ndarray], pictures: Sequence[np.ndarray]
) -> Dict[str, float]:
    """Mean activation of every layer over pictures (1, 3, H, W) of any sizes, each counted once."""
    each = [codes(weights, picture) for picture in pictures]
    return {name: float(np.mean([c[name].mean() for c in each])) for name in each[0]}


def rescale(
    weights: Mapping[str, np.ndarray],
    pictures: Sequence[np.ndarray],
    means: Mapping[str, float],
) -> Weights:
    """Scale every layer by one positive number so that its mean activation is ``means[layer]``.

    A relu network with average pooling stays the same function up to these numbers: what a layer's
    scale adds, the next layer's kernel takes away again.
    """
    found = mean_activations(weights, pictures)
    scaled: Weights = {}
    before = 1.0
    for name, mean in found.items():
        scale = means[name] / mean
        scaled[name + "_weight"] = (weights[name + "_weight"] * (scale / before)).astype(np.float32)
        scaled[name + "_bias"] = (weights[name + "_bias"] * scale).astype(np.float32)
        before = scale
    return scaled


def filters_activations(
    weights: Mapping[str, np.ndarray], pictures: np.ndarray, size: int
) -> Dict[str, np.ndarray]:
    """Mean activation of every layer's filters, (C, B), on pictures (B, 3, H, W)."""
    parts = [codes(weights, pictures[i : i + size]) for i in range(0, len(pictures), size)]
    return {
        name: np.concatenate([part[name].mean((2, 3)) for part in parts]).T for name in parts[0]
    }


def distinct_first(
    weights: Mapping[str, np.ndarray], pictures: np.ndarray, size: int = 32
) -> Dict[str, np.ndarray]:
    """An order of every layer's filters in which the first ones differ as much as possible.

    What a filter extracts of a texture is what the texture adds to its activation: its profile is
    its mean activation on each picture less that on a plain picture of the same mean colour; its
    selectivity is the profile's standard deviation over the activation's, low for a filter that
    tells colours apart and textures hardly. First comes the most selective filter; then, again and
    again, the one with the largest product of selectivity and (1 - its highest correlation with the
    profile of a filter that already has its place).

    Parameters
    ----------
    weights
        Folded weights.
    pictures
        (B, 3, H, W) procedural textures on the 0-255 scale minus the mean colour.
    size
        Pictures computed at once.

    Returns
    -------
    dict
        ``conv1_1`` ...: (C,) numbers of filters.
    """
    textured = filters_activations(weights, pictures, size)
    plain = np.broadcast_to(pictures.mean((2, 3), keepdims=True), pictures.shape)
    uniform = filters_activations(weights, plain, size)
    orders = {}
    for name, activations in textured.items():
        profiles = activations - uniform[name]
        selectivity = profiles.std(1) / (activations.std(1) + 1e-9)
        deviations = profiles - profiles.mean(1, keepdims=True)
        deviations /= np.linalg.norm(deviations, axis=1, keepdims=True) + 1e-9
        likeness = deviations @ deviations.T  # correlations
        order = [int(selectivity.argmax())]
        while len(order) < len(profiles):
            score = selectivity * (1 - likeness[:, order].max(1))
            score[order] = -np.inf
            order.append(int(score.argmax()))
        orders[name] = np.array(order)
    return orders


def permute(weights: Mapping[str, np.ndarray], orders: Mapping[str, np.ndarray]) -> Weights:
    """Put every layer's filters into the given order; the network's function stays the same."""
    permuted: Weights = {}
    inputs = np.arange(3)
    for name in layer_names():
        order = orders[name]
        permuted[name + "_weight"] = weights[name + "_weight"][order][:, inputs]
        permuted[name + "_bias"] = weights[name + "_bias"][order]
        inputs = order
    return permuted


def untrained(channels: Sequence[int], seed: int) -> Weights:
    """He's initialisation and zero biases: the same topology, nothing learned."""
    rng = np.random.RandomState(seed)
    weights: Weights = {}
    inputs = 3
    for name in layer_names():
        outputs = channels[int(name[4]) - 1]
        spread = np.sqrt(2 / (9 * inputs))
        weights[name + "_weight"] = (rng.randn(outputs, inputs, 3, 3) * spread).astype(np.float32)
        weights[name + "_bias"] = np.zeros(outputs, np.float32)
        inputs = outputs
    return weights
