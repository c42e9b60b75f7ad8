"""VGG-19 (Simonyan & Zisserman) as a Gluon symbol, truncated at the deepest layer asked for.

Layers carry the field's names: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 ... relu5_4.
Any number of filters a layer is possible; it follows from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from fmi._mxnet import BFLOAT16, Context, NDArray, mx
from fmi.errors import InputError, unknown

BLOCKS = (2, 2, 4, 4, 4)  # convolutions a block
FILTERS = (64, 128, 256, 512, 512)  # of each convolution of a block


def _names() -> List[str]:
    names = []
    for block, convolutions in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        if block < len(BLOCKS):
            names.append(f"pool{block}")
    return names


LAYERS = tuple(_names())
CONVOLUTIONS = tuple(name for name in LAYERS if name.startswith("conv"))


def check_layer(name: str) -> str:
    """The name itself.

    Raises
    ------
    InputError
        If VGG-19 has no such layer; the message names the nearest ones.
    """
    if name not in LAYERS:
        raise unknown("layer", name, LAYERS)
    return name


def deepest(layers: Sequence[str]) -> str:
    """The layer at which a network that computes all `layers` can end."""
    return max((check_layer(name) for name in layers), key=LAYERS.index)


def convolutions_before(layer: str) -> Tuple[str, ...]:
    """The convolutions that `layer` needs, itself included, in order."""
    return tuple(n for n in LAYERS[: LAYERS.index(layer) + 1] if n.startswith("conv"))


def smallest_side(layer: str) -> int:
    """Pixels a side that a picture needs so that `layer` has at least one position."""
    return int(2 ** sum(name.startswith("pool") for name in LAYERS[: LAYERS.index(layer) + 1]))


def extent(layer: str, size: Tuple[int, int]) -> Tuple[int, int]:
    """Height and width of the code at `layer` of a picture of that height and width."""
    least = smallest_side(layer)
    return size[0] // least, size[1] // least


def symbol(
    layers: Sequence[str], shapes: Mapping[str, Tuple[int, ...]], pool: str, dtype: Any = np.float32
) -> Any:
    """The symbol whose outputs are the codes of `layers`, in their order.

    Parameters
    ----------
    layers
        Names of layers.
    shapes
        Shapes of ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) and so on.
    pool
        ``"avg"`` (2016 code) or ``"max"`` (VGG-19 as it was trained); 2x2, stride 2, the size
        rounded down.
    dtype
        Number format of weights and activations; the picture and the codes are float32.
    """
    end = LAYERS.index(deepest(layers))
    reduced = dtype is not np.float32
    node = mx.sym.var("data", dtype="float32")
    if reduced:
        node = mx.sym.amp_cast(node, dtype=dtype)
    nodes = {}
    for name in LAYERS[: end + 1]:
        if name.startswith("conv"):
            weight, bias = (
                mx.sym.var(f"{name}_{kind}", shape=shapes[f"{name}_{kind}"], dtype=dtype)
                for kind in ("weight", "bias")
            )
            node = mx.sym.Convolution(
                node,
                weight,
                bias,
                kernel=(3, 3),
                pad=(1, 1),
                num_filter=shapes[f"{name}_bias"][0],
                name=name,
            )
        elif name.startswith("relu"):
            node = mx.sym.Activation(node, act_type="relu", name=name)
        else:
            node = mx.sym.Pooling(node, kernel=(2, 2), stride=(2, 2), pool_type=pool, name=name)
        nodes[name] = node
    codes = [nodes[name] for name in layers]
    return mx.sym.Group([mx.sym.amp_cast(c, dtype="float32") for c in codes] if reduced else codes)


@dataclass(frozen=True)
class Network:
    """A truncated VGG-19 with frozen parameters."""

    layers: Tuple[str, ...]
    filters: Mapping[str, int]  # feature maps of each convolution and relu
    block: mx.gluon.SymbolBlock

    def __call__(self, image: NDArray) -> Dict[str, NDArray]:
        """The codes of all layers for (B, 3, H, W) pictures with the mean subtracted."""
        outputs = self.block(image)
        return dict(zip(self.layers, outputs if isinstance(outputs, list) else [outputs]))

    def free(self) -> None:
        """Give back the memory of the last batch's activations; the network stays usable."""
        self.block.hybridize(static_alloc=True, static_shape=True)


def network(
    arrays: Mapping[str, np.ndarray],
    layers: Sequence[str],
    pool: str,
    ctx: Context,
    precision: str = "float32",
) -> Network:
    """A network that computes the codes of `layers` in one pass.

    Parameters
    ----------
    arrays
        float32 weights (O, I, 3, 3) for RGB input on the 0-255 scale minus the mean, and biases
        (O,), named ``conv1_1_weight``, ``conv1_1_bias`` ...; more than is needed does no harm.
    layers
        Names of layers, each once.
    pool
        ``"avg"`` or ``"max"``.
    ctx
        Device.
    precision
        ``"float32"`` or ``"bfloat16"``; the picture and the codes are float32 in either case.

    Raises
    ------
    InputError
        If there is no such layer, or the weights lack one that is needed.
    """
    names = tuple(dict.fromkeys(check_layer(name) for name in layers))
    needed = convolutions_before(deepest(names))
    for name in needed:
        if f"{name}_weight" not in arrays or f"{name}_bias" not in arrays:
            raise InputError(f"the weights lack {name}, which {deepest(names)} needs")
    shapes = {key: tuple(value.shape) for key, value in arrays.items()}
    dtype = BFLOAT16 if precision == "bfloat16" else np.float32
    inputs = mx.sym.var("data", dtype="float32")
    block = mx.gluon.SymbolBlock(symbol(names, shapes, pool, dtype), inputs)
    parameters = block.collect_params()
    parameters.setattr("grad_req", "null")  # gradients for the picture alone
    for key, parameter in parameters.items():
        values = mx.nd.array(arrays[key], ctx=ctx, dtype="float32")
        parameter.dtype = dtype
        parameter.initialize(mx.init.Zero(), ctx=ctx)
        parameter.set_data(values if dtype is np.float32 else mx.nd.amp_cast(values, dtype=dtype))
    block.hybridize(static_alloc=True, static_shape=True)
    filters = {}
    for name in needed:
        filters[name] = filters[name.replace("conv", "relu")] = shapes[f"{name}_bias"][0]
    for index in range(1, len(BLOCKS)):  # a pooling layer has as many as the relu before it
        last = f"relu{index}_{BLOCKS[index - 1]}"
        if last in filters:
            filters[f"pool{index}"] = filters[last]
    return Network(names, filters, block)


def activation_bytes(
    filters: Mapping[str, int], layers: Sequence[str], height: int, width: int
) -> int:
    """Memory that one picture's activations and gradients take on the way to `layers`.

    Each convolution and each relu keeps its output (float32) for the way back, and gradients
    take about as much as the two largest of them once more.
    """
    sizes = []
    for name in LAYERS[: LAYERS.index(deepest(layers)) + 1]:
        if name.startswith("pool"):
            height, width = height // 2, width // 2
        sizes.append(4 * filters[name] * height * width)
    return sum(sizes) + 2 * sum(sorted(sizes)[-2:])
