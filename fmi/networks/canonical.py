"""Canonical weights: float32 kernels (O, I, 3, 3) for RGB on 0-255 minus a mean colour."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from fmi.errors import InputError
from fmi.networks.names import Key
from fmi.networks.topology import Topology
from fmi.sources.table import Layout

__all__ = ["BN_EPSILON", "canonical"]

BN_EPSILON = 1e-5  # torchvision's and Gluon's


def canonical(
    named: Mapping[Key, np.ndarray], member: Topology, layout: Layout, mean: Any = None
) -> Tuple[Dict[str, np.ndarray], Tuple[float, float, float]]:
    """Fold BatchNorm and input scale into the convolutions, and reorder axes and colours.

    Parameters
    ----------
    named
        Arrays as returned by :func:`named_arrays`.
    member
        Member of the VGG family.
    layout
        Layout of the file.
    mean
        RGB mean colour on the 0-255 scale. If ``None``, the mean of the layout is used.

    Returns
    -------
    dict
        ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) ... float32, read-only.
    tuple
        The RGB mean colour on the 0-255 scale.

    Raises
    ------
    InputError
        If a shape is wrong, or a value is not finite.
    """
    to_255 = 255 / layout.scale
    colour = np.asarray(mean if mean is not None else np.multiply(layout.mean, to_255), dtype=float)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise InputError("its mean is not an RGB colour on the 0-255 scale")
    result: Dict[str, np.ndarray] = {}
    channels: Optional[int] = 3
    for convolution in member.convolutions:
        parts = {kind: array for (name, kind), array in named.items() if name == convolution}
        if not parts:
            channels = None  # layers after a gap cannot be used, but the file may contain them
            continue
        weight, bias = _convolution(convolution, parts, layout, channels)
        if convolution == member.convolutions[0]:
            if layout.channels == "BGR":
                weight = weight[:, ::-1]
            # The original input is (x / to_255 - mean) / std; the new input is x - colour.
            weight = weight / (to_255 * np.asarray(layout.std))[None, :, None, None]
        for kind, array in (("weight", weight), ("bias", bias)):
            with np.errstate(over="ignore"):  # infinity is rejected below
                array = np.array(array, dtype=np.float32, order="C")  # copy: frees the file's bytes
            if not np.isfinite(array).all():
                raise InputError(f"the {kind} of {convolution} contains values that are not finite")
            array.flags.writeable = False
            result[f"{convolution}_{kind}"] = array
        channels = weight.shape[0]
    if not result:
        raise InputError("the file contains no VGG network: it has no convolution")
    red, green, blue = (float(value) for value in colour)
    return result, (red, green, blue)


def _convolution(
    name: str, parts: Mapping[str, np.ndarray], layout: Layout, channels: Optional[int]
) -> Tuple[np.ndarray, np.ndarray]:
    """Return the kernel (O, I, 3, 3) and bias (O,) of a convolution, with BatchNorm folded in."""
    if "weight" not in parts or "bias" not in parts:
        raise InputError(f"the weight or the bias of {name} is missing")
    weight, bias = parts["weight"], parts["bias"]
    if weight.ndim == 4:
        weight = weight.transpose([layout.kernel.index(axis) for axis in "OIHW"])
    expected = (len(bias), channels or weight.shape[1], 3, 3)
    if weight.shape != expected or bias.ndim != 1 or not bias.size:
        raise InputError(
            f"{name} has a weight of shape {parts['weight'].shape} and a bias of shape"
            f" {bias.shape}; expected a weight with axes {layout.kernel}, 3 x 3 kernels and"
            f" {expected[1]} input channels, and one bias for each of its O filters"
        )
    norm = [parts.get(kind) for kind in ("gamma", "beta", "mean", "variance")]
    if all(part is None for part in norm):
        return weight, bias
    if any(part is None or part.shape != bias.shape for part in norm):
        raise InputError(f"a BatchNorm parameter of {name} is missing or has the wrong shape")
    gamma, beta, mean, variance = (np.asarray(part, dtype=np.float64) for part in norm)
    if not (variance >= 0).all():
        raise InputError(f"the BatchNorm of {name} has a negative or undefined variance")
    gain = gamma / np.sqrt(variance + BN_EPSILON)
    return weight * gain[:, None, None, None], (bias - mean) * gain + beta
