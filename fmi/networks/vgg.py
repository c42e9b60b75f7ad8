"""VGG networks as Gluon symbols, truncated at the deepest requested layer.

The number of filters of each layer is determined by the weights.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from fmi.device.mxnet import AMX, BFLOAT16, Context, NDArray, mx
from fmi.device.precision import PRECISIONS
from fmi.errors import InputError
from fmi.losses import Loss
from fmi.networks.base import Layer, Network, Truncated, frozen_block
from fmi.networks.passes import EVEN, Passes, turned_weights
from fmi.networks.reach import Reach, Reaches
from fmi.networks.topology import FILTERS, VGG19, Topology
from fmi.networks.weights import PHOTOGRAPHS, Weights
from fmi.sources import table

__all__ = ["VGG", "Shapes", "TruncatedVGG", "network", "outline", "symbols", "truncated"]

Shapes = Mapping[str, Tuple[int, ...]]


def symbols(
    member: Topology,
    end: str,
    shapes: Shapes,
    pool: str,
    rounding: str,
    dtype: Any = np.float32,
    picture: Optional[Tuple[int, ...]] = None,
) -> Dict[str, Any]:
    """Return the symbol of each layer from ``conv1_1`` to `end`; the input is named ``data``.

    Where a size before a pooling is odd and rounded up, ``even_relu1_1``, ``even_relu1_2`` ... are
    the activations of this block with a row or column of zeros, for the second pass; only the last
    one is pooled. They are omitted if the size of the pictures is not known.

    Parameters
    ----------
    member
        Member of the VGG family.
    end
        Name of the deepest layer.
    shapes
        Shapes of ``conv1_1_weight`` (O, I, 3, 3), ``conv1_1_bias`` (O,) and so on.
    pool
        ``"avg"`` (2016 code) or ``"max"`` (as in the training of VGG); 2x2 with stride 2.
    rounding
        ``"up"`` (2016 code): in odd sizes, the last row or column is pooled with zeros; ``"down"``:
        it is omitted.
    dtype
        Number format of weights and activations; the picture is float32.
    picture
        Shape (B, 3, H, W) of the pictures, which saves padding where sizes are even.

    Notes
    -----
    For bfloat16 without AMX, oneDNN has only a slow convolution of 3 channels, in another memory
    layout than all others. If `picture` is given, a fourth channel of zeros avoids it.
    """
    node = mx.sym.var("data", dtype="float32")
    if dtype is not np.float32:
        node = mx.sym.amp_cast(node, dtype=dtype)
    fourth = picture is not None and dtype is BFLOAT16 and not AMX
    if picture and fourth:
        node = _with_zeros(node, (picture[0], 1, *picture[2:]), 1, dtype)
    nodes: Dict[str, Any] = {}
    for name in member.layers[: member.layers.index(end) + 1]:
        if name.startswith("conv"):
            weight, bias = (
                mx.sym.var(f"{name}_{kind}", shape=shapes[f"{name}_{kind}"], dtype=dtype)
                for kind in ("weight", "bias")
            )
            filters, *kernel = shapes[f"{name}_weight"]
            if fourth and name == member.convolutions[0]:
                weight = _with_zeros(weight, (filters, 1, *kernel[1:]), 1, dtype)
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
            full = rounding == "up" and pool == "max"  # averages would leave out the zeros
            if rounding == "up" and not full:
                before, node = node, _even(node, picture, dtype)
                if picture and node is not before:
                    block = [relu for relu in nodes if relu.startswith(f"relu{name[-1]}")]
                    for relu in block[:-1]:
                        nodes[f"{EVEN}{relu}"] = _even(nodes[relu], picture, dtype)
                    nodes[f"{EVEN}{block[-1]}"] = node
            node = mx.sym.Pooling(
                node,
                kernel=(2, 2),
                stride=(2, 2),
                pool_type=pool,
                pooling_convention="full" if full else "valid",
                name=name,
            )
        nodes[name] = node
    return nodes


def _even(node: Any, picture: Optional[Tuple[int, ...]], dtype: Any) -> Any:
    """Append a row or column of zeros where a size is odd; both if the sizes are not known.

    What is appended to an even size is left out by the pooling.
    """
    if picture is None:
        if dtype is BFLOAT16:  # which MXNet cannot pad
            return mx.sym.amp_cast(
                _even(mx.sym.amp_cast(node, dtype="float32"), None, None), dtype=dtype
            )
        return mx.sym.pad(
            node, mode="constant", constant_value=0, pad_width=(0, 0, 0, 0, 0, 1, 0, 1)
        )
    _, (shape,), _ = node.infer_shape(data=picture)
    for axis in (2, 3):
        if shape[axis] % 2:
            node = _with_zeros(node, (*shape[:axis], 1, *shape[axis + 1 :]), axis, dtype)
            shape = (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])
    return node


def _with_zeros(node: Any, shape: Tuple[int, ...], axis: int, dtype: Any) -> Any:
    """Append zeros of a shape along an axis."""
    return mx.sym.concat(node, mx.sym.amp_cast(mx.sym.zeros(shape), dtype=dtype), dim=axis)


class TruncatedVGG(Truncated):
    """A truncated VGG network whose gradient on CPUs is computed as a second forward pass.

    The loss is differentiated with respect to the codes, and :mod:`fmi.networks.passes` computes
    the gradient with respect to the picture.
    """

    def __init__(
        self,
        layers: Sequence[str],
        block: mx.gluon.SymbolBlock,
        passes: Optional[Callable[[Tuple[int, ...]], Passes]] = None,
        half: bool = False,
    ) -> None:
        super().__init__(layers, block, half)
        self._make_passes = passes
        self._passes: Optional[Passes] = None

    def forward(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes, in the arrays of the first pass where both passes are used."""
        passes = self.passes(image.shape)
        return super().forward(image) if passes is None else passes.forward(image)

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return the loss of each picture and its gradient, as :meth:`Truncated.gradient` does."""
        passes = self.passes(image.shape)
        if passes is None:
            return super().gradient(image, loss)
        passes.forward(image)
        return self.gradient_of_last(image, loss)

    def gradient_of_last(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return what :meth:`gradient` does, without the first pass over the pictures."""
        passes = self.passes(image.shape)
        if passes is None:
            return super().gradient(image, loss)
        with mx.autograd.record():
            losses = loss(passes.codes)
        losses.backward()
        needed = {term.layer for term in loss.terms}
        for name in set(passes.wanted) - needed:  # which still have those of the last loss
            passes.gradients[name][:] = 0
        return losses, passes.backward()

    def passes(self, shape: Tuple[int, ...]) -> Optional[Passes]:
        """Return both passes for pictures of a shape, or ``None`` if they cannot be used."""
        if self._make_passes is not None and (
            self._passes is None or self._passes.image.shape != shape
        ):
            self._release()  # before building the next ones, for their memory
            self._passes = self._make_passes(shape)
        return self._passes

    def free(self) -> None:
        """Give back the memory of the last batch's activations; the network stays usable."""
        self._release()
        super().free()

    def _release(self) -> None:
        if self._passes is not None:
            mx.nd.waitall()  # MXNet may wait forever for passes that are released as they compute
            self._passes = None


class VGG(Network):
    """A network of the VGG family, defined by its weights.

    Parameters
    ----------
    weights
        Canonical weights; they may end before the deepest layer.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights
        self.topology = weights.topology
        self.name = self._name()
        self.mean = weights.mean
        # The presets of the paper are tuned to activations as large as those of Caffe's VGG.
        self.settings = "code" if weights.layout.original or weights.embedded else "fast"
        self._shapes: Shapes = {key: array.shape for key, array in weights.arrays.items()}
        self.layers = self._layers()

    def _name(self) -> str:
        weights = self.weights
        if weights.embedded:
            return "fmi's embedded network"
        source = weights.source or ""
        return source if source == PHOTOGRAPHS else weights.topology.name

    def _layers(self) -> Tuple[Layer, ...]:
        kinds = {"conv": "convolution", "relu": "activation", "pool": "pooling"}
        covered = self.weights.covers
        found, channels, stride, field = [], 3, 1, 1
        for name in self.topology.layers:
            if name.startswith("conv"):
                if name not in covered:
                    break
                channels, field = self._shapes[f"{name}_bias"][0], field + 2 * stride
            elif name.startswith("pool"):
                field, stride = field + stride, 2 * stride
            kind = kinds[name[:4]]
            found.append(Layer(name, kind, channels, stride, field, kind == "convolution"))
        return tuple(found)

    @property
    def pools(self) -> Tuple[str, ...]:
        """Average pooling as in the 2016 code, or maximum pooling as in training."""
        return ("avg", "max")

    @property
    def precisions(self) -> Tuple[str, ...]:
        """All number formats."""
        return tuple(name for name in PRECISIONS if name != "auto")

    @property
    def note(self) -> str:
        """The note about the network in the corner of a sheet; empty for VGG-19."""
        return "" if self.name == VGG19.name else super().note

    def knows(self, name: str) -> bool:
        """Return whether this member of the family has a layer of this name."""
        return name in self.topology.layers

    def layer(self, name: str) -> Layer:
        """Return a layer, as :meth:`Network.layer` does; the error names missing weights."""
        if name in self.topology.layers and all(name != layer.name for layer in self.layers):
            needed = self.topology.convolutions_before(name)
            lacking = next(n for n in needed if n not in self.weights.covers)
            raise InputError(
                f"{self.weights.path} lacks {lacking}, which {name} needs; choose a shallower layer"
                " or other weights"
            )
        return super().layer(name)

    def smallest_side(self, layer: str) -> int:
        """Return 2 to the power of the number of poolings up to `layer`."""
        return self.topology.smallest_side(layer)

    def sizes(self, height: int, width: int) -> Dict[str, Tuple[int, int]]:
        """Halve the size, rounded up, at each pooling.

        Layers are omitted if their size would be 0 when rounded down.
        """
        found = {}
        for layer in self.layers:
            if min(height, width) < layer.stride:
                break
            found[layer.name] = (-(-height // layer.stride), -(-width // layer.stride))
        return found

    def reach(self, layer: str) -> Reaches:
        """Return the reach of convolutions 3x3 with padding and of poolings 2x2, for both axes."""
        found = Reach()
        for name in self.topology.layers[: self.topology.layers.index(self.layer(layer).name) + 1]:
            if name.startswith("conv"):
                found = found.convolved(3, pad=1)
            elif name.startswith("pool"):
                found = found.convolved(2, stride=2)
        return found, found

    def picture_bytes(
        self, layers: Sequence[str], height: int, width: int, precision: str = "float32"
    ) -> int:
        """Memory of one picture's activations and gradients on the way to `layers`.

        Each relu and pooling keeps its output for the way back, which needs about as much as the
        largest of them four times more. The codes of `layers` are copied to float32, with
        their gradients and differences.
        """
        end, sizes, room, copies = self.deepest(layers), self.sizes(height, width), [], 0
        bytes_ = 4 if precision == "float32" else 2
        for layer in self.layers:
            rows, columns = sizes[layer.name]
            values = layer.channels * rows * columns
            if layer.kind != "convolution" or layer.name in layers:
                room.append(bytes_ * values)
            if layer.name in layers:
                copies += 3 * 4 * values
            if layer.name == end:
                break
        return sum(room) + 4 * max(room) + copies

    def describe(self) -> Dict[str, Any]:
        """The weights' file and digest."""
        return {**self.weights.describe(), "default_settings": self.settings}

    def _truncate(
        self, layers: Sequence[str], pool: str, rounding: str, ctx: Context, precision: str
    ) -> TruncatedVGG:
        arrays = self.weights.arrays
        return truncated(self.topology, arrays, layers, pool, rounding, ctx, precision)


@functools.lru_cache(maxsize=2)
def network(weights: Weights) -> VGG:
    """Return the network of these weights; it is cached."""
    return VGG(weights)


def outline(member: Topology) -> VGG:
    """Return a member of the family with all weights 0, for inspection."""
    arrays, channels = {}, 3
    for name in member.convolutions:
        filters = FILTERS[int(name[4]) - 1]
        arrays[f"{name}_weight"] = np.zeros((filters, channels, 3, 3), dtype=np.float32)
        arrays[f"{name}_bias"] = np.zeros(filters, dtype=np.float32)
        channels = filters
    layout = table.layouts()["caffe"]
    name = member.name
    return VGG(Weights(name, Path(name), "", (0.0, 0.0, 0.0), arrays, "npz", layout, member))


def truncated(
    member: Topology,
    arrays: Mapping[str, np.ndarray],
    layers: Sequence[str],
    pool: str,
    rounding: str,
    ctx: Context,
    precision: str = "float32",
) -> TruncatedVGG:
    """Return a network that computes the codes of `layers` in one pass.

    Parameters
    ----------
    member
        Member of the VGG family.
    arrays
        float32 weights (O, I, 3, 3) for RGB input on the 0-255 scale minus the mean, and biases
        (O,), named ``conv1_1_weight``, ``conv1_1_bias`` ... Arrays of deeper layers are ignored.
    layers
        Names of layers, without duplicates.
    pool
        ``"avg"`` or ``"max"``.
    rounding
        ``"up"`` or ``"down"``, for sizes that are odd.
    ctx
        Device.
    precision
        ``"float32"``, ``"bfloat16"`` or ``"float16"``. Pictures and codes are always float32.
    """
    names = tuple(dict.fromkeys(layers))
    end = member.deepest(names)
    shapes = {key: tuple(value.shape) for key, value in arrays.items()}
    dtype = {"bfloat16": BFLOAT16, "float16": np.float16}.get(precision, np.float32)
    nodes = symbols(member, end, shapes, pool, rounding, dtype)
    codes = [nodes[name] for name in names]
    if dtype is not np.float32:
        codes = [mx.sym.amp_cast(code, dtype="float32") for code in codes]
    needed = [
        f"{name}_{kind}" for name in member.convolutions_before(end) for kind in ("weight", "bias")
    ]
    parameters = {
        name: _format(mx.nd.array(arrays[name], ctx=ctx, dtype="float32"), dtype) for name in needed
    }
    block = frozen_block(mx.sym.Group(codes), parameters, dict.fromkeys(needed, dtype), ctx)
    parameters = {name: p.data(ctx) for name, p in block.collect_params().items()}
    passes = None
    if ctx.device_type == "cpu" and pool == "avg" and mx.runtime.Features().is_enabled("MKLDNN"):
        made = functools.partial(symbols, member, end, shapes, pool, rounding, dtype)
        passes = _passes(member, made, parameters, names, dtype)
    return TruncatedVGG(names, block, passes, half=dtype is np.float16)


def _passes(
    member: Topology,
    made: Callable[[Tuple[int, ...]], Mapping[str, Any]],
    parameters: Mapping[str, NDArray],
    layers: Sequence[str],
    dtype: Any,
) -> Callable[[Tuple[int, ...]], Passes]:
    """Return a function that builds :class:`Passes` for a shape."""
    wide = {n: _format(w, np.float32) for n, w in parameters.items() if n.endswith("_weight")}
    first = member.convolutions[0]
    turned = {n: _format(w, dtype) for n, w in turned_weights(wide, first).items()}
    return lambda shape: Passes(made(shape), parameters, turned, layers, shape, dtype)


def _format(array: NDArray, dtype: Any) -> NDArray:
    return mx.nd.amp_cast(array, dtype="float32" if dtype is np.float32 else dtype)
