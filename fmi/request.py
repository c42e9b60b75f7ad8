"""Requests: the calls of :mod:`fmi.invert`, checked, and computed when they are asked to be.

Each function takes the arguments of the function of the same name in :mod:`fmi.invert`, which
documents them, and builds the targets of one kind of inversion.
"""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union, cast

import numpy as np
from numpy.typing import ArrayLike

from fmi import checks, codes, losses
from fmi.call import Call, Filters, Layers, layers_of, places_of
from fmi.device.mxnet import NDArray, mx
from fmi.errors import InputError, shown
from fmi.inversion import Inversion, Place
from fmi.losses import Loss
from fmi.pictures import Source

__all__ = [
    "Request",
    "Styles",
    "code",
    "direction",
    "feature_map",
    "gatys",
    "maximise",
    "purposeful",
    "random",
    "rank_match",
]


Styles = Union[Source, Sequence[Source]]


@dataclass(frozen=True)
class Request:
    """The pictures that one call asks for.

    Attributes
    ----------
    call
        The call, whose arguments have been checked.
    places
        Which pictures it asks for.
    invert
        Function that returns an inversion for each of some places.
    """

    call: Call
    places: Sequence[Place]
    invert: Callable[[Sequence[Place]], List[Inversion]]

    @property
    def records(self) -> List[Dict[str, Any]]:
        """The records of the inversions, without their outcome."""
        return [self.call.describe(place) for place in self.places]

    def only(self, place: Place) -> Request:
        """Return a request for one picture of the call."""
        return replace(self, places=[place])

    def compute(self) -> List[Inversion]:
        """Return an inversion for each place; after Ctrl-C, some may be missing."""
        found = self.invert(self.places)
        if not self.call.interrupted:
            self.call.finish(self.places)
        return found


def _of_all(call: Call, places: Sequence[Place], loss: Callable[..., Loss], **more: Any) -> Request:
    return Request(call, places, lambda some: call.invert(some, loss, **more))


def code(
    picture: Source, layer: Optional[Layers], layers: Optional[Layers], keywords: Mapping[str, Any]
) -> Request:
    """Ask for the inversion of a code (Eq. 1)."""
    call = Call("code", layers_of(layer, layers), keywords, {"content": picture})
    weight = call.settings.code_weight
    return _of_all(call, [Place()], lambda _: losses.all_codes(call.content, weight))


def feature_map(
    picture: Source,
    layer: Optional[Layers],
    filters: Optional[Filters],
    chain: bool,
    layers: Optional[Layers],
    keywords: Mapping[str, Any],
) -> Request:
    """Ask for the inversion of single feature maps (Eq. 1-2)."""
    names, chosen = places_of(layer, layers, filters)
    chain = checks.checked("chain", chain, bool)
    call = Call("feature_map", names, keywords, {"content": picture})
    chosen = call.filters(filters, chosen)

    def loss(now: Mapping[str, NDArray], places: Sequence[Place]) -> Loss:
        wanted = [place.filter for place in places if place.filter is not None]
        targets = {name: codes.isolate(now[name], wanted) for name in now}
        return losses.all_codes(call.confined(targets), call.settings.code_weight)

    if not chain:
        places = [Place(index) for index in chosen]
        return _of_all(call, places, lambda group: loss(call.content, group))
    places = [Place(index, tuple(chosen[:n])) for n, index in enumerate(chosen)]

    def compute(places: Sequence[Place]) -> List[Inversion]:
        found: List[Inversion] = []

        def from_last(group: Sequence[Place]) -> Loss:
            return loss(call.again(found[-1]) if found else call.content, group)

        for place in places:
            found += call.invert([place], from_last)
            if not found[-1].finished or call.interrupted:
                break
        return found

    return Request(call, places, compute)


def direction(
    picture: Source,
    layer: Optional[Layers],
    directions: ArrayLike,
    keywords: Mapping[str, Any],
) -> Request:
    """Ask for the inversion of directions in the space of channels."""
    names = layers_of(layer)
    if len(names) > 1:
        raise InputError(f"directions belong to one layer, but {len(names)} layers are given")
    call = Call("direction", names, keywords, {"content": picture})
    values = _unit_vectors(directions, call.network.layer(call.layers[0]).channels)
    places = [Place(direction=tuple(row)) for row in values.tolist()]

    def loss(group: Sequence[Place]) -> Loss:
        rows = call.to_device(np.array([place.direction for place in group]))
        targets = {name: codes.along(values, rows) for name, values in call.content.items()}
        return losses.all_codes(call.confined(targets), call.settings.code_weight)

    return _of_all(call, places, loss)


def _unit_vectors(directions: ArrayLike, channels: int) -> np.ndarray:
    """Return directions as unit vectors (D, C) float64."""
    try:
        values = np.atleast_2d(np.asarray(directions, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError(f"directions={shown(directions)} must be an array of numbers") from None
    if values.ndim != 2 or values.shape[1] != channels or not len(values):
        raise InputError(
            f"directions have the shape {np.shape(directions)}; give one or several rows of"
            f" {channels} numbers, one for each feature map of the layer"
        )
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise InputError("directions must be finite, and none may be 0")
    return values / lengths


def maximise(
    picture: Source,
    layer: Optional[Layers],
    filters: Optional[Filters],
    keywords: Mapping[str, Any],
) -> Request:
    """Ask for the maximisation of the mean activation of single feature maps."""
    names, chosen = places_of(layer, None, filters)
    call = Call("maximise", names, keywords, {"content": picture})
    chosen = call.filters(filters, chosen)

    def loss(group: Sequence[Place]) -> Loss:
        wanted = call.to_device(np.array([place.filter for place in group]))
        sizes = call.truncated.sizes(*call.size)
        parts = []
        for name in call.layers:
            rows = mx.nd.one_hot(wanted, call.network.layer(name).channels)
            parts.append(losses.activation(name, rows, 1 / math.prod(sizes[name])))
        return functools.reduce(operator.add, parts)

    return _of_all(call, [Place(index) for index in chosen], loss)


def random(
    picture: Source,
    layer: Optional[Layers],
    draws: int,
    seed: int,
    layers: Optional[Layers],
    keywords: Mapping[str, Any],
) -> Request:
    """Ask for the inversion of randomly modified codes (Eq. 3-4)."""
    call = Call(
        "random", layers_of(layer, layers), {**keywords, "seed": seed}, {"content": picture}
    )
    places = [Place(draw=n) for n in range(checks.checked("draws", draws, checks.Count))]

    def loss(group: Sequence[Place]) -> Loss:
        targets = {}
        for name, values in call.content.items():
            channels, distribution = values.shape[1], call.settings.shares
            shares = [
                codes.shares(distribution, channels, call.record["seed"], place.draw or 0, name)
                for place in group
            ]
            targets[name] = codes.reallocate(values, call.to_device(np.stack(shares), "float64"))
        return losses.all_codes(call.confined(targets), call.settings.code_weight)

    def notes() -> Mapping[str, Any]:
        return {"silent_feature_maps": call.silent()}

    return _of_all(call, places, loss, notes=notes)


def purposeful(
    content: Source,
    style: Styles,
    keywords: Mapping[str, Any],
    style_weights: Optional[Sequence[float]] = None,
    strength: Optional[float] = None,
) -> Request:
    """Ask for the transfer of the energies of style pictures (Eq. 5)."""
    kind = ("purposeful", losses.purposeful, codes.energy)
    return _transfer(*kind, content, style, style_weights, strength, keywords)


def gatys(
    content: Source,
    style: Styles,
    keywords: Mapping[str, Any],
    style_weights: Optional[Sequence[float]] = None,
    strength: Optional[float] = None,
) -> Request:
    """Ask for a style transfer with Gram matrices (Gatys et al. 2016)."""
    kind = ("gatys", losses.gatys, codes.gram)
    return _transfer(*kind, content, style, style_weights, strength, keywords)


def _transfer(
    function: str,
    loss: Callable[..., Loss],
    statistic: Callable[[NDArray], NDArray],
    content: Source,
    style: Styles,
    style_weights: Optional[Sequence[float]],
    strength: Optional[float],
    keywords: Mapping[str, Any],
) -> Request:
    several = isinstance(style, (list, tuple))
    styles: List[Source] = list(cast(Sequence[Source], style if several else [style]))
    weights = _shares_of(styles, style_weights)
    roles = ["style", *(f"style_{n}" for n in range(2, len(styles) + 1))]
    call = Call(function, [], keywords, {"content": content, **dict(zip(roles, styles))})
    if len(styles) > 1:
        call.record["style_weights"] = weights
    scheme = call.scheme
    if strength is not None:
        share = checks.checked("strength", strength, checks.Strength)
        call.record["strength"] = share
        scheme = replace(scheme, alpha=2 * (1 - share) * scheme.alpha, beta=2 * share * scheme.beta)

    def of_all(_: Sequence[Place]) -> Loss:
        masks = {name: call.mask_at(name) for name in scheme.style_layers}
        return loss(call.kept(), call.style_sums(statistic, weights, masks), scheme, masks)

    return _of_all(call, [Place()], of_all)


def _shares_of(styles: Sequence[Source], weights: Optional[Sequence[float]]) -> List[float]:
    """Return the weights of style pictures, brought to the sum 1."""
    if not styles:
        raise InputError("no style picture is given; give at least one")
    if weights is None:
        return [1 / len(styles)] * len(styles)
    values = checks.checked("style_weights", weights, checks.Weights)
    if len(values) != len(styles) or not sum(values) > 0:
        raise InputError(
            f"style_weights={shown(weights)} must be {len(styles)} numbers, one for each style"
            " picture, not all 0"
        )
    total = sum(values)
    if math.isclose(total, 1, rel_tol=1e-12):  # those of a record keep their last bits
        return list(values)
    return [value / total for value in values]


def rank_match(
    content: Source,
    style: Source,
    layer: Optional[Layers],
    layers: Optional[Layers],
    keywords: Mapping[str, Any],
) -> Request:
    """Ask for the exchange of feature maps by the rank of their energies (2016 code)."""
    call = Call(
        "rank_match", layers_of(layer, layers), keywords, {"content": content, "style": style}
    )

    def loss(_: Sequence[Place]) -> Loss:
        pairs = {name: (call.content[name], call.style[name]) for name in call.content}
        targets = {name: codes.rank_match(*pair) for name, pair in pairs.items()}
        return losses.all_codes(call.confined(targets), call.settings.code_weight)

    return _of_all(call, [Place()], loss)
