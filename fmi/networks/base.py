"""Base classes of networks: ordered layers, the codes of a batch, the gradient of a loss."""

from __future__ import annotations

import abc
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fmi.device.mxnet import Context, NDArray, mx
from fmi.errors import InputError, unknown
from fmi.losses import Loss
from fmi.networks.reach import Reaches
from fmi.sources import table

__all__ = [
    "PRESETS",
    "Input",
    "Layer",
    "Network",
    "Triple",
    "Truncated",
    "frozen_block",
    "input_of",
    "loss_scaling",
    "split_filters",
]

Triple = Tuple[float, float, float]


@dataclass(frozen=True)
class Input:
    """The preprocessing that a network expects: ``(RGB * scale / 255 - mean) / std``.

    Attributes
    ----------
    channels
        ``"RGB"`` or ``"BGR"``, the order of the colour channels in the input of the network.
    scale
        The value of white before the mean is subtracted: 1 or 255.
    mean, std
        One value each for red, green and blue, in this order and on this scale.
    """

    channels: str = "RGB"
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        finite = all(abs(v) < float("inf") for v in (self.scale, *self.mean, *self.std))
        right = self.channels in ("RGB", "BGR") and len(self.mean) == len(self.std) == 3
        if not (right and finite and self.scale > 0 and all(v > 0 for v in self.std)):
            raise InputError(
                f"{self} is not valid: channels must be 'RGB' or 'BGR', scale must be positive,"
                " mean and std must have three finite values each, and std must be positive"
            )

    @property
    def colour(self) -> Triple:
        """The mean as an RGB colour on the 0-255 scale."""
        red, green, blue = (value * 255 / self.scale for value in self.mean)
        return red, green, blue

    @property
    def deviation(self) -> Triple:
        """The standard deviations of red, green and blue on the 0-255 scale."""
        red, green, blue = (value * 255 / self.scale for value in self.std)
        return red, green, blue


PRESETS = {"caffe": "caffe", "imagenet": "zoo"}  # input name -> layout in models/sources.yaml


def input_of(given: Union[str, Input]) -> Input:
    """Return the input preset ``"caffe"`` or ``"imagenet"``; an :class:`Input` is returned as is.

    Raises
    ------
    InputError
        If there is no preset of this name.
    """
    if isinstance(given, Input):
        return given
    if given not in PRESETS:
        raise unknown("input", given, PRESETS)
    layout = table.layouts()[PRESETS[given]]
    return Input(layout.channels, layout.scale, layout.mean, layout.std)


@dataclass(frozen=True)
class Layer:
    """A layer whose code can be modified.

    Attributes
    ----------
    name
        The name by which the layer is requested.
    kind
        ``"convolution"``, ``"activation"``, ``"pooling"``, ``"addition"`` or
        ``"concatenation"``.
    channels
        Number of feature maps of the code.
    stride
        Distance between neighbouring positions, in pixels of the picture; the larger one if rows
        and columns differ.
    receptive_field
        Side length, in pixels, of the square of the picture within which one position depends on
        it.
    negative
        Whether the code can contain negative values.
    """

    name: str
    kind: str
    channels: int
    stride: int
    receptive_field: int
    negative: bool


def split_filters(text: str) -> Tuple[str, Tuple[int, ...]]:
    """Split ``"relu3_2:17"`` or ``"relu3_2:4,17"`` into the layer and its filters.

    Returns
    -------
    tuple
        The name of the layer and its filters, which are empty for ``"relu3_2"``.

    Raises
    ------
    InputError
        If the text after the colon is not a list of integers.
    """
    name, colon, filters = text.partition(":")
    try:
        return name, tuple(int(index) for index in filters.split(",")) if colon else ()
    except ValueError:
        raise InputError(
            f"{text!r} is not a layer with filter numbers; write it like 'relu3_2:4,17'"
        ) from None


class Truncated:
    """A network with frozen parameters that ends at the deepest of the requested layers.

    Attributes
    ----------
    layers
        Names of the layers whose codes are computed.
    block
        The Gluon block. Its input is a batch of pictures (B, 3, H, W), RGB on the 0-255 scale
        with the mean subtracted.
    """

    def __init__(
        self, layers: Sequence[str], block: mx.gluon.SymbolBlock, half: bool = False
    ) -> None:
        self.layers = tuple(layers)
        self.block = block
        self._half = half  # whether the activations are float16
        self._scale = 1.0

    def __call__(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes of all layers for (B, 3, H, W) pictures with the mean subtracted."""
        outputs = self.block(image)
        return dict(zip(self.layers, outputs if isinstance(outputs, list) else [outputs]))

    def code(self, image: NDArray, layer: str) -> NDArray:
        """Return the code (B, C, M, N) of one layer."""
        return self(image)[layer]

    def losses(self, image: NDArray, loss: Loss) -> NDArray:
        """Return the loss of each picture (B,), without its gradient."""
        return loss(self(image))

    def sums(
        self, image: NDArray, statistic: Callable[[NDArray], NDArray], layers: Sequence[str]
    ) -> Dict[str, NDArray]:
        """Return a statistic of the code of each of `layers`.

        Parameters
        ----------
        image
            Pictures (B, 3, H, W) with the mean subtracted.
        statistic
            Function of a code (B, C, M, N) that is a sum over its positions.
        layers
            Some of the layers of this network.
        """
        codes = self(image)
        return {layer: statistic(codes[layer]) for layer in layers}

    def forward(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes as calling the network does, or arrays that its next use overwrites.

        The latter need no memory beyond what :meth:`gradient` needs.
        """
        return self(image)

    def sizes(self, height: int, width: int) -> Dict[str, Tuple[int, int]]:
        """Return the number of rows and columns of the codes of a picture."""
        outputs = self.block(mx.sym.var("data", dtype="float32"))
        outputs = mx.sym.Group(outputs if isinstance(outputs, list) else [outputs])
        _, shapes, _ = outputs.infer_shape(data=(1, 3, height, width))
        return {name: (shape[2], shape[3]) for name, shape in zip(self.layers, shapes)}

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return the loss of each picture and its gradient, by automatic differentiation.

        Parameters
        ----------
        image
            Pictures (B, 3, H, W) with the mean subtracted.
        loss
            Loss with targets for B pictures.

        Returns
        -------
        tuple
            Losses (B,) and gradients (B, 3, H, W). The next call may overwrite the gradients.
        """
        image.attach_grad()
        if not self._half:
            return self._differentiate(image, loss)
        losses, gradient, self._scale = loss_scaling(
            lambda scale: self._differentiate(image, scale * loss), self._scale
        )
        return losses, gradient

    def gradient_of_last(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Return what :meth:`gradient` does, for the pictures last given to :meth:`forward`.

        Subclasses use the codes that are still there; automatic differentiation cannot.
        """
        return self.gradient(image, loss)

    def _differentiate(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        # Do not set train_mode=False: on CPUs, MXNet's gradient of max pooling is incorrect then.
        with mx.autograd.record():
            losses = loss(self(image))
        losses.backward()
        return losses, image.grad

    def free(self) -> None:
        """Release the memory of the activations of the last batch; the network stays usable."""
        self.block.hybridize(static_alloc=True, static_shape=True)


class Network(abc.ABC):
    """A network with its weights, from which any layer can be requested.

    Attributes
    ----------
    name
        Name for display.
    layers
        The layers in the order of computation.
    mean
        RGB colour on the 0-255 scale that is subtracted from a picture.
    settings
        Name of the default preset for this network.
    """

    name: str
    layers: Tuple[Layer, ...]
    mean: Triple
    settings: str

    def __init__(self) -> None:
        self._truncated: OrderedDict[Tuple[Any, ...], Truncated] = OrderedDict()

    # --- defined by each kind of network ---

    @abc.abstractmethod
    def smallest_side(self, layer: str) -> int:
        """Return the smallest side, in pixels, of a picture that leaves `layer` a position."""

    @abc.abstractmethod
    def sizes(self, height: int, width: int) -> Dict[str, Tuple[int, int]]:
        """Return the size of the feature maps of each layer; omit layers that would be empty."""

    @abc.abstractmethod
    def picture_bytes(
        self, layers: Sequence[str], height: int, width: int, precision: str = "float32"
    ) -> int:
        """Estimate the bytes that one picture needs while a loss at `layers` is minimised."""

    @abc.abstractmethod
    def reach(self, layer: str) -> Reaches:
        """Return on which rows and on which columns of the picture a position depends.

        Raises
        ------
        InputError
            If it depends on the whole picture, or if this cannot be told.
        """

    @abc.abstractmethod
    def describe(self) -> Dict[str, Any]:
        """Return what identifies the network as plain data: name, digest and preprocessing."""

    @abc.abstractmethod
    def _truncate(
        self, layers: Sequence[str], pool: str, rounding: str, ctx: Context, precision: str
    ) -> Truncated:
        """Return the network that computes the codes of `layers`, all of which exist."""

    @property
    def pools(self) -> Tuple[str, ...]:
        """The kinds of pooling to choose from; empty if the pooling of the network is fixed."""
        return ()

    @property
    def precisions(self) -> Tuple[str, ...]:
        """The number formats that the network can compute in."""
        return ("float32",)

    def nodes(self, _layers: Iterable[str]) -> List[int]:
        """Return which operators of the network the layers are; nothing if their names tell it.

        Gluon counts the layers of a process, so that in the same network, ``relu1`` may be the
        first relu or the second.
        """
        return []

    # --- common to all networks ---

    def layer(self, name: str) -> Layer:
        """Return the layer with a name, or with the only name that ends in ``_`` and `name`.

        Raises
        ------
        InputError
            If no layer or several layers match; the message suggests names.
        """
        if not isinstance(name, str):
            raise InputError(f"a layer must be given by its name, not {name!r}")
        known = {layer.name: layer for layer in self.layers}
        if name in known:
            return known[name]
        ends = [full for full in known if full.endswith(f"_{name}")]
        if len(ends) > 1:
            raise InputError(
                f"layer {name!r} of {self.name} is ambiguous: it matches {', '.join(ends[:8])}"
                f"{' ...' if len(ends) > 8 else ''}; use a longer part of its name"
            )
        if not ends:
            raise unknown(f"layer of {self.name}", name, known)
        return known[ends[0]]

    def deepest(self, layers: Iterable[str]) -> str:
        """Return the name of the layer among `layers` that is computed last."""
        order = [layer.name for layer in self.layers]
        return max((self.layer(name).name for name in layers), key=order.index)

    @property
    def note(self) -> str:
        """The note about the network in the corner of a sheet; empty for VGG-19."""
        return f"drawn with {self.name}, not VGG-19"

    def knows(self, name: str) -> bool:
        """Return whether a layer has exactly this name, even if its weights are missing."""
        return any(layer.name == name for layer in self.layers)

    def landmarks(self, first: bool = False) -> List[str]:
        """Return representative layers, one for each size of the feature maps.

        Parameters
        ----------
        first
            Whether to return the first activation of each size instead of the last one.
        """
        found: Dict[int, str] = {}
        for kind in ("activation", "addition", "convolution"):  # in order of preference
            for layer in self.layers:
                if layer.kind == kind and not (first and layer.stride in found):
                    found[layer.stride] = layer.name
            if found:
                break
        return list(found.values()) or [self.layers[-1].name]

    def check_size(self, layers: Iterable[str], height: int, width: int, name: str) -> None:
        """Check that a picture is large enough for all layers.

        Parameters
        ----------
        layers
            Names of layers.
        height, width
            Size of the picture after resizing.
        name
            Name of the picture, for the message.

        Raises
        ------
        InputError
            If the feature maps of a layer would be empty; the message gives the smallest side.
        """
        sizes = self.sizes(height, width)
        small = [layer for layer in layers if layer not in sizes]
        if small:
            layer = self.deepest(small)
            raise InputError(
                f"{name} is {width} x {height} pixels after resizing, which is too small for"
                f" {layer}: each side must have at least {self.smallest_side(layer)} pixels;"
                " increase long_edge"
            )

    def check_filters(self, filters: Sequence[int], layer: str) -> None:
        """Check that a layer has all of the given filters.

        Raises
        ------
        InputError
            If the layer lacks one of the filters, or if no filter is given.
        """
        count = self.layer(layer).channels
        if not filters:
            raise InputError("no filter is given; name at least one (filters are numbered from 0)")
        for index in filters:
            if not 0 <= index < count:
                raise InputError(
                    f"{layer} has no filter {index}; its filters are numbered 0 to {count - 1}"
                )

    def truncated(
        self,
        layers: Sequence[str],
        pool: str = "avg",
        ctx: Union[None, Context] = None,
        precision: str = "float32",
        pool_rounding: str = "up",
    ) -> Truncated:
        """Return the network that computes the codes of `layers` and the gradients of losses.

        The most recent one is cached, but each thread gets its own, because it contains arrays that
        the next step overwrites.

        Parameters
        ----------
        layers
            Names of layers.
        pool
            ``"avg"`` or ``"max"``; ignored if :attr:`pools` is empty.
        ctx
            Device. The default is the CPU.
        precision
            One of :attr:`precisions`. Pictures and codes are always float32.
        pool_rounding
            ``"up"`` or ``"down"``, for sizes that are odd; ignored if :attr:`pools` is empty.

        Raises
        ------
        InputError
            If a layer does not exist, or if the network does not support the precision.
        """
        names = tuple(dict.fromkeys(self.layer(name).name for name in layers))
        if precision not in self.precisions:
            raise InputError(
                f"{self.name} supports precision {' or '.join(self.precisions)}, not {precision};"
                " omit precision"
            )
        ctx = ctx or mx.cpu()
        pooling = (pool, pool_rounding) if self.pools else ()
        key = (names, pooling, str(ctx), precision, threading.get_ident())
        found = self._truncated.get(key)
        if found is None:
            self._truncated.clear()  # before building the next one, to release its memory
            found = self._truncated[key] = self._truncate(
                names, pool, pool_rounding, ctx, precision
            )
        return found

    def table(self, height: int, width: int) -> List[Dict[str, Any]]:
        """Return each layer as plain data, with the size of its feature maps for a picture."""
        sizes = self.sizes(height, width)
        return [{**asdict(layer), "size": sizes.get(layer.name)} for layer in self.layers]


def loss_scaling(
    differentiate: Callable[[float], Tuple[NDArray, NDArray]], scale: float
) -> Tuple[NDArray, NDArray, float]:
    """Compute the gradient of a loss in float16, whose largest number is 65504.

    The loss is multiplied by `scale` before differentiation, and the gradient is divided by it
    afterwards. The scale is halved until no intermediate gradient overflows, except in pictures
    whose loss is not finite. If that does not help, `scale` stays as it is.

    Parameters
    ----------
    differentiate
        Function that takes a scale and returns the losses (B,) times the scale and their gradient.
    scale
        Initial scale.

    Returns
    -------
    tuple
        Losses, gradient, and the initial scale for the next step.
    """
    smallest = 2.0**-24
    smaller = scale
    while True:
        losses, gradient = differentiate(smaller)
        rows = np.flatnonzero(np.isfinite(losses.asnumpy()))
        if all(mx.nd.multi_all_finite(gradient[row], num_arrays=1).asscalar() for row in rows):
            return losses / smaller, gradient / smaller, smaller
        if smaller <= smallest:
            losses, gradient = differentiate(scale)
            return losses / scale, gradient / scale, scale
        smaller /= 2


def frozen_block(
    symbol: Any, parameters: Mapping[str, NDArray], dtypes: Mapping[str, Any], ctx: Context
) -> mx.gluon.SymbolBlock:
    """Return a Gluon block of a symbol, without gradients for the parameters.

    Parameters
    ----------
    symbol
        Symbol whose input is named ``data`` and whose outputs are the codes.
    parameters
        Parameters by name. Parameters that the symbol does not need are ignored.
    dtypes
        Number format of the parameters that are not float32.
    ctx
        Device.
    """
    block = mx.gluon.SymbolBlock(symbol, mx.sym.var("data", dtype="float32"))
    needed = block.collect_params()
    needed.setattr("grad_req", "null")
    for name, parameter in needed.items():
        values = parameters[name]
        parameter.shape, parameter.dtype = values.shape, dtypes.get(name, "float32")
        parameter.initialize(mx.init.Zero(), ctx=ctx)
        parameter.set_data(values.as_in_context(ctx))
    block.hybridize(static_alloc=True, static_shape=True)
    return block
