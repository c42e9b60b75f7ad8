"""What a network is to the rest of fmi: layers in order, codes of a batch, gradient of a loss."""

from __future__ import annotations

import abc
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple, Union

from fmi.device.mxnet import Context, NDArray, mx
from fmi.errors import InputError, unknown
from fmi.losses import Loss
from fmi.sources import table

Triple = Tuple[float, float, float]


@dataclass(frozen=True)
class Input:
    """How a network takes a picture: ``(RGB * scale / 255 - mean) / std``.

    Attributes
    ----------
    channels
        ``"RGB"`` or ``"BGR"``, the order in which the network takes the colours.
    scale
        What white is before the mean is subtracted: 1 or 255.
    mean, std
        In the order red, green, blue, on that scale.
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
        """The standard deviation on the 0-255 scale, red, green, blue."""
        red, green, blue = (value * 255 / self.scale for value in self.std)
        return red, green, blue


PRESETS = {"caffe": "caffe", "imagenet": "zoo"}  # name of an input: layout of models/sources.yaml


def input_of(given: Union[str, Input]) -> Input:
    """An input by the name of its preset, ``"caffe"`` or ``"imagenet"``, or the input itself.

    Raises
    ------
    InputError
        For another name.
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
        By which it is asked for.
    kind
        ``"convolution"``, ``"activation"``, ``"pooling"``, ``"addition"`` or
        ``"concatenation"``.
    channels
        How many feature maps its code has.
    stride
        Pixels of the picture from one position to the next.
    receptive_field
        Pixels a side of the picture that one position depends on.
    negative
        Whether its values can be negative.
    """

    name: str
    kind: str
    channels: int
    stride: int
    receptive_field: int
    negative: bool


def split_filters(text: str) -> Tuple[str, Tuple[int, ...]]:
    """A layer and its filters from ``"relu3_2:17"`` or ``"relu3_2:4,17"``.

    Returns
    -------
    tuple
        The layer's name, and the filters; none for ``"relu3_2"``.

    Raises
    ------
    InputError
        If what follows the colon is no list of numbers.
    """
    name, colon, filters = text.partition(":")
    try:
        return name, tuple(int(index) for index in filters.split(",")) if colon else ()
    except ValueError:
        raise InputError(
            f"{text!r} is not a layer with filter numbers; write it like 'relu3_2:4,17'"
        ) from None


class Truncated:
    """A network cut off behind the layers that are asked for, its parameters frozen.

    Attributes
    ----------
    layers
        Whose codes it computes.
    block
        The Gluon block; it takes (B, 3, H, W) pictures, RGB on the 0-255 scale minus the mean.
    """

    def __init__(
        self, layers: Sequence[str], block: mx.gluon.SymbolBlock, half: bool = False
    ) -> None:
        self.layers = tuple(layers)
        self.block = block
        self._half = half  # whether its activations are float16
        self._scale = 1.0

    def __call__(self, image: NDArray) -> Dict[str, NDArray]:
        """The codes of all layers for (B, 3, H, W) pictures with the mean subtracted."""
        outputs = self.block(image)
        return dict(zip(self.layers, outputs if isinstance(outputs, list) else [outputs]))

    def gradient(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        """Each picture's loss and its gradient, by automatic differentiation.

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
        image.attach_grad()
        if not self._half:
            return self._differentiate(image, loss)
        losses, gradient, self._scale = loss_scaling(
            lambda scale: self._differentiate(image, loss.times(scale)), self._scale
        )
        return losses, gradient

    def _differentiate(self, image: NDArray, loss: Loss) -> Tuple[NDArray, NDArray]:
        # Not with train_mode=False: MXNet's gradient of maximum pooling is wrong then on CPUs.
        with mx.autograd.record():
            losses = loss(self(image))
        losses.backward()
        return losses, image.grad

    def free(self) -> None:
        """Give back the memory of the last batch's activations; the network stays usable."""
        self.block.hybridize(static_alloc=True, static_shape=True)


class Network(abc.ABC):
    """A network with its weights, of which any layer can be asked for.

    Attributes
    ----------
    name
        For people.
    layers
        In the order of computation.
    mean
        RGB colour on the 0-255 scale that is subtracted from a picture.
    settings
        Name of the preset that serves it where no other is asked for.
    """

    name: str
    layers: Tuple[Layer, ...]
    mean: Triple
    settings: str

    def __init__(self) -> None:
        self._truncated: OrderedDict[Tuple[Any, ...], Truncated] = OrderedDict()

    # --- what each kind of network tells ---

    @abc.abstractmethod
    def smallest_side(self, layer: str) -> int:
        """Pixels a side that a picture needs so that `layer` has at least one position."""

    @abc.abstractmethod
    def sizes(self, height: int, width: int) -> Dict[str, Tuple[int, int]]:
        """Height and width of each layer's feature maps for a picture; layers too deep left out."""

    @abc.abstractmethod
    def picture_bytes(self, layers: Sequence[str], height: int, width: int) -> int:
        """About how much memory one picture takes while a loss at `layers` is descended."""

    @abc.abstractmethod
    def describe(self) -> Dict[str, Any]:
        """What identifies the network, as plain data: name, digest, how it takes a picture."""

    @abc.abstractmethod
    def _truncate(
        self, layers: Sequence[str], pool: str, ctx: Context, precision: str
    ) -> Truncated:
        """The network that computes the codes of `layers`, which are known to exist."""

    @property
    def pools(self) -> Tuple[str, ...]:
        """The kinds of pooling that can be chosen; empty where the network has its own."""
        return ()

    @property
    def precisions(self) -> Tuple[str, ...]:
        """The number formats that it can compute in."""
        return ("float32",)

    # --- what all have in common ---

    def layer(self, name: str) -> Layer:
        """The layer of a name; of the end of a name, where no other layer's name ends so.

        Raises
        ------
        InputError
            If there is no such layer, or several; the message names the nearest ones.
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
        """The one of `layers` that is computed last."""
        order = [layer.name for layer in self.layers]
        return max((self.layer(name).name for name in layers), key=order.index)

    @property
    def note(self) -> str:
        """What the corner of a sheet says about the network; nothing for VGG-19."""
        return f"drawn with {self.name}, not VGG-19"

    def knows(self, name: str) -> bool:
        """Whether there is a layer of this very name, be its weights there or not."""
        return any(layer.name == name for layer in self.layers)

    def landmarks(self, first: bool = False) -> List[str]:
        """Layers that stand for the network's depth, one for each size of the feature maps.

        Parameters
        ----------
        first
            The first activation of each size instead of the last one.
        """
        found: Dict[int, str] = {}
        for kind in ("activation", "addition", "convolution"):  # the best that there is
            for layer in self.layers:
                if layer.kind == kind and not (first and layer.stride in found):
                    found[layer.stride] = layer.name
            if found:
                break
        return list(found.values()) or [self.layers[-1].name]

    def check_size(self, layers: Iterable[str], height: int, width: int, name: str) -> None:
        """Refuse a picture of which nothing would be left at one of the layers.

        Parameters
        ----------
        layers
            Names of layers.
        height, width
            Of the picture as the network takes it.
        name
            Of the picture, for the message.

        Raises
        ------
        InputError
            With the smallest side that works.
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
        """Refuse filters that a layer does not have.

        Raises
        ------
        InputError
            For the first such filter, or if there is none at all.
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
    ) -> Truncated:
        """The network that computes the codes of `layers`, and the gradient of their losses.

        The last one is kept, so that asking again builds nothing.

        Parameters
        ----------
        layers
            Names of layers.
        pool
            ``"avg"`` or ``"max"``, where :attr:`pools` offers a choice.
        ctx
            Device; the CPU by default.
        precision
            One of :attr:`precisions`; the picture and the codes are float32 in any case.

        Raises
        ------
        InputError
            If there is no such layer, or the network cannot compute in that format.
        """
        names = tuple(dict.fromkeys(self.layer(name).name for name in layers))
        if precision not in self.precisions:
            raise InputError(
                f"{self.name} supports precision {' or '.join(self.precisions)}, not {precision};"
                " omit precision"
            )
        ctx = ctx or mx.cpu()
        key = (names, pool if self.pools else "", str(ctx), precision)
        if key not in self._truncated:
            self._truncated.clear()  # first, so that its memory is free for the next
            self._truncated[key] = self._truncate(names, pool, ctx, precision)
        return self._truncated[key]

    def table(self, height: int, width: int) -> List[Dict[str, Any]]:
        """Each layer as plain data, with the size of its feature maps for a picture."""
        sizes = self.sizes(height, width)
        return [{**asdict(layer), "size": sizes.get(layer.name)} for layer in self.layers]


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


def frozen_block(
    symbol: Any, parameters: Mapping[str, NDArray], dtypes: Mapping[str, Any], ctx: Context
) -> mx.gluon.SymbolBlock:
    """A Gluon block of a symbol whose input is called ``data``, with no gradient for parameters.

    Parameters
    ----------
    symbol
        Its outputs are the codes.
    parameters
        By name; more than the symbol needs does no harm.
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
