"""VGG-19 (Simonyan & Zisserman) as a Gluon symbol, truncated at the deepest layer asked for.

Layers carry the field's names: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 ... relu5_4.
Any number of filters a layer is possible; it follows from the weights.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from fmi.device.mxnet import BFLOAT16, Context, NDArray, mx
from fmi.errors import InputError
from fmi.losses import Loss
from fmi.networks.passes import Passes, turned_weights
from fmi.networks.topology import (
    BLOCKS,
    CONVOLUTIONS,
    LAYERS,
    check_layer,
    convolutions_before,
    deepest,
)


def symbols(
    end: str, shapes: Mapping[str, Tuple[int, ...]], pool: str, dtype: Any = np.float32
) -> Dict[str, Any]:
    """Every layer's symbol from ``conv1_1`` to `end`; the picture is called ``data``.

    Parameters
    ----------
    end
        Name of the deepest layer.
    shapes
        Shapes of ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) and so on.
    pool
        ``"avg"`` (2016 code) or ``"max"`` (VGG-19 as it was trained); 2x2, stride 2, the size
        rounded down.
    dtype
        Number format of weights and activations; the picture is float32.
    """
    node = mx.sym.var("data", dtype="float32")
    if dtype is not np.float32:
        node = mx.sym.amp_cast(node, dtype=dtype)
    nodes = {}
    for name in LAYERS[: LAYERS.index(end) + 1]:
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
    return nodes


def symbol(
    layers: Sequence[str], shapes: Mapping[str, Tuple[int, ...]], pool: str, dtype: Any = np.float32
) -> Any:
    """The symbol whose outputs are the codes of `layers`, float32, in their order.

    The parameters are those of :func:`symbols`.
    """
    nodes = symbols(deepest(layers), shapes, pool, dtype)
    codes = [nodes[name] for name in layers]
    if dtype is not np.float32:
        codes = [mx.sym.amp_cast(code, dtype="float32") for code in codes]
    return mx.sym.Group(codes)


class Network:
    """A truncated VGG-19 with frozen parameters.

    Attributes
    ----------
    layers
        Whose codes it computes.
    filters
        Feature maps of each convolution, relu and pooling layer.
    block
        The Gluon block.
    """

    def __init__(
        self,
        layers: Tuple[str, ...],
        filters: Mapping[str, int],
        block: mx.gluon.SymbolBlock,
        passes: Optional[Callable[[Tuple[int, ...]], Passes]] = None,
        half: bool = False,
    ) -> None:
        self.layers = layers
        self.filters = filters
        self.block = block
        self._make_passes = passes
        self._passes: Optional[Passes] = None
        self._half = half  # whether its activations are float16
        self._scale = 1.0

    def __call__(self, image: NDArray) -> Dict[str, NDArray]:
        """The codes of all layers for (B, 3, H, W) pictures with the mean subtracted."""
        outputs = self.block(image)
        return dict(zip(self.layers, outputs if isinstance(outputs, list) else [outputs]))

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Each picture's loss and its gradient, by automatic differentiation.

        On CPUs the loss is differentiated down to the codes, and :mod:`fmi.passes` goes on.

        Parameters
        ----------
        image
            (B, 3, H, W), the mean subtracted.
        loss
            Of as many pictures.

        Returns
        -------
        tuple
            (B,) and (B, 3, H, W); the next call may overwrite the latter.
        """
        passes = self.passes(image.shape)
        if passes is None:
            image.attach_grad()
            if not self._half:
                return self._differentiate(image, loss)
            losses, gradient, self._scale = loss_scaling(
                lambda scale: self._differentiate(image, loss.times(scale)), self._scale
            )
            return losses, gradient
        codes = passes.forward(image)
        with mx.autograd.record():
            losses = loss(codes)
        losses.backward()
        return losses, passes.backward()

    def passes(self, shape: Tuple[int, ...]) -> Optional[Passes]:
        """Both passes for pictures of a shape; ``None`` where :mod:`fmi.passes` is not for."""
        if self._make_passes is not None and (
            self._passes is None or self._passes.image.shape != shape
        ):
            self._passes = None  # first, so that its memory is free for the next
            self._passes = self._make_passes(shape)
        return self._passes

    def _differentiate(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        with mx.autograd.record():
            losses = loss(self(image))
        losses.backward()
        return losses, image.grad

    def free(self) -> None:
        """Give back the memory of the last batch's activations; the network stays usable."""
        self._passes = None
        self.block.hybridize(static_alloc=True, static_shape=True)


def loss_scaling(
    differentiate: Callable[[float], Tuple[NDArray, NDArray]], scale: float
) -> Tuple[NDArray, NDArray, float]:
    """The gradient of a loss in float16, whose numbers end at 65504.

    The loss is multiplied by `scale` before it is differentiated, the gradient divided by it
    afterwards; the scale is halved until no gradient is too large on the way.

    Parameters
    ----------
    differentiate
        From a scale to the losses (B,) times the scale, and their gradient.
    scale
        To begin with.

    Returns
    -------
    tuple
        Losses, gradient, and the scale to begin with at the next step.
    """
    smallest = 2.0**-24  # below it something else is wrong, such as losses that are not finite
    while True:
        losses, gradient = differentiate(scale)
        if scale <= smallest or bool(mx.nd.multi_all_finite(gradient, num_arrays=1).asscalar()):
            return losses / scale, gradient / scale, scale
        scale /= 2


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
        ``"float32"``, ``"bfloat16"`` or ``"float16"``; the picture and the codes are float32 in
        any case.

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
    dtype = {"bfloat16": BFLOAT16, "float16": np.float16}.get(precision, np.float32)
    inputs = mx.sym.var("data", dtype="float32")
    block = mx.gluon.SymbolBlock(symbol(names, shapes, pool, dtype), inputs)
    parameters = block.collect_params()
    parameters.setattr("grad_req", "null")  # gradients for the picture alone
    for key, parameter in parameters.items():
        values = mx.nd.array(arrays[key], ctx=ctx, dtype="float32")
        parameter.shape, parameter.dtype = shapes[key], dtype
        parameter.initialize(mx.init.Zero(), ctx=ctx)
        parameter.set_data(_format(values, dtype))
    block.hybridize(static_alloc=True, static_shape=True)
    filters = {}
    for name in needed:
        filters[name] = filters[name.replace("conv", "relu")] = shapes[f"{name}_bias"][0]
    for index in range(1, len(BLOCKS)):  # a pooling layer has as many as the relu before it
        last = f"relu{index}_{BLOCKS[index - 1]}"
        if last in filters:
            filters[f"pool{index}"] = filters[last]
    passes = _passes(block, names, shapes, pool, ctx, dtype)
    return Network(names, filters, block, passes, half=dtype is np.float16)


def _passes(
    block: mx.gluon.SymbolBlock,
    layers: Sequence[str],
    shapes: Mapping[str, Tuple[int, ...]],
    pool: str,
    ctx: Context,
    dtype: Any,
) -> Optional[Callable[[Tuple[int, ...]], Passes]]:
    """What makes the :class:`Passes` for a shape, where they can be used."""
    if ctx.device_type != "cpu" or pool != "avg" or not mx.runtime.Features().is_enabled("MKLDNN"):
        return None
    weights = {name: parameter.data() for name, parameter in block.collect_params().items()}
    wide = {n: _format(w, np.float32) for n, w in weights.items() if n.endswith("_weight")}
    turned = {n: _format(w, dtype) for n, w in turned_weights(wide, CONVOLUTIONS[0]).items()}
    nodes = symbols(deepest(layers), shapes, pool, dtype)
    return lambda shape: Passes(nodes, weights, turned, layers, shape, dtype)


def _format(array: NDArray, dtype: Any) -> NDArray:
    return mx.nd.amp_cast(array, dtype="float32" if dtype is np.float32 else dtype)


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
