"""Pictures from modified codes: the functions that notebooks use.

>>> import fmi.invert
>>> panels = fmi.invert.feature_map("golden_gate.jpg", "relu3_2", [0, 1, 2])  # doctest: +SKIP
>>> panels[0].save("relu3_2_filter0.png")  # doctest: +SKIP

Every function takes the keywords of :class:`Options`, and every field of
:class:`fmi.settings.Settings` (and of :class:`fmi.settings.Transfer` for style transfer) as a
keyword: ``long_edge=256, steps=100, stop=0, denoise=0, pool="max" ...``. A picture is a path, a
PIL image, or an (H, W, 3) uint8 RGB array. Wherever a layer is taken, several may be given (also as
``layers=``); their codes are then inverted together, as the 2016 code can.
"""

from __future__ import annotations

import logging
from typing import (
    Any,
    Dict,
    List,
    Optional,
    Sequence,
    Union,
)

import numpy as np

from fmi import codes, losses, pictures
from fmi.call import Call, Layers, in_one_line, layers_of
from fmi.device.mxnet import (
    NDArray,
    mx,
)
from fmi.errors import InputError
from fmi.inversion import Inversion
from fmi.pictures import Source

log = logging.getLogger(__name__)


@in_one_line
def code(picture: Source, layer: Optional[Layers] = None, **options: Any) -> Inversion:
    """Classical code inversion: a picture whose code is that of `picture`.

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        For an unknown layer or option, an unreadable picture, or weights that lack the layer.
    """
    call = Call("code", layers_of(layer, options), options)
    content = call.content(picture)
    return call.invert(call.code_loss(call.network(content)), [{}])[0]


@in_one_line
def feature_map(
    picture: Source,
    layer: Layers,
    filters: Union[int, Sequence[int]],
    chain: bool = False,
    **options: Any,
) -> List[Inversion]:
    """Feature map inversion: what a filter extracts from a picture (Eq. 1-2, Fig. 3).

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``.
    filters
        One or several, counted from 0.
    chain
        Make the target of the second and every further filter from the code of the picture just
        found, as the script of 2016 does that drew the published Fig. 3; otherwise every
        target comes from `picture` (Eq. 2) and all are descended in one batch.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    list of Inversion
        One for each filter; after Ctrl-C those begun.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`, and for a filter that the layer has not.
    """
    call = Call("feature_map", layers_of(layer, options), options)
    chosen = call.filters(filters)
    now = call.network(call.content(picture))
    labels: List[Dict[str, Any]] = [{"filter": index, "chain": chain} for index in chosen]
    if chain:
        labels = [{**label, "filters_before": chosen[:place]} for place, label in enumerate(labels)]
    found: List[Inversion] = []
    for group in [[place] for place in range(len(chosen))] if chain else [range(len(chosen))]:
        targets = {name: codes.isolate(now[name], [chosen[i] for i in group]) for name in now}
        found += call.invert(call.code_loss(targets), [labels[i] for i in group])
        if found[-1].stopped == "interrupted":
            break
        if chain:
            now = call.network(
                call.to_device(pictures.from_rgb(found[-1].array, call.weights.mean))
            )
    return found


@in_one_line
def random(
    picture: Source,
    layer: Optional[Layers] = None,
    draws: int = 1,
    seed: int = 0,
    **options: Any,
) -> List[Inversion]:
    """Randomly modified code inversion: energies reallocated at random (Eq. 3-4, Fig. 4).

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_1"``.
    draws
        How many pictures; draw i with a seed is the same whatever their number.
    seed
        Of the draws and of the first picture.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    call = Call("random", layers_of(layer, options), {**options, "seed": seed})
    if draws < 1:
        raise InputError(f"draws={draws} should be at least 1")
    now = call.network(call.content(picture))
    draw = codes.normal_shares if call.settings.shares == "normal" else codes.simplex_shares
    targets = {}
    for place, (name, values) in enumerate(now.items()):
        call.note_silent(name, values)
        shares = [
            draw(np.random.RandomState([seed, index, place]), values.shape[1])
            for index in range(draws)
        ]
        targets[name] = codes.reallocate(values, call.to_device(np.stack(shares), "float64"))
    return call.invert(call.code_loss(targets), [{"draw": index} for index in range(draws)])


@in_one_line
def purposeful(content: Source, style: Source, **options: Any) -> Inversion:
    """Purposefully modified code inversion, PMCI: the style's energies (Eq. 5, Fig. 5).

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    **options
        See :class:`Options`, :class:`fmi.settings.Settings` and
        :class:`fmi.settings.Transfer` (``content_layer=``, ``style_layers=``, ``alpha=`` ...).

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    call = Call("purposeful", [], options)
    return call.transfer(content, style, codes.energy, losses.energy)


@in_one_line
def gatys(content: Source, style: Source, **options: Any) -> Inversion:
    """Style transfer by Gram matrices (Gatys et al. 2016), the baseline of Fig. 5.

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    **options
        As for :func:`purposeful`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    call = Call("gatys", [], options)
    return call.transfer(content, style, codes.gram, losses.gram)


@in_one_line
def rank_match(
    content: Source, style: Source, layer: Optional[Layers] = None, **options: Any
) -> Inversion:
    """The 2016 code's extra mode: feature maps exchanged by the rank of their energies.

    Parameters
    ----------
    content, style
        Paths, PIL images, or (H, W, 3) uint8 RGB arrays.
    layer
        Such as ``"relu3_1"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    call = Call("rank_match", layers_of(layer, options), options)
    now = call.network(call.content(content))
    other = call.network(call.style(style))
    targets = {name: codes.rank_match(now[name], other[name]) for name in now}
    return call.invert(call.code_loss(targets), [{}])[0]


@in_one_line
def activations(picture: Source, layer: Layers, **options: Any) -> Dict[str, NDArray]:
    """The codes of a picture: what the functions above start from.

    Parameters
    ----------
    picture
        Path, PIL image, or (H, W, 3) uint8 RGB array.
    layer
        Such as ``"relu3_2"``, or several.
    **options
        See :class:`Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    dict
        Layer to code, (1, C, M, N).
    """
    call = Call("activations", layers_of(layer, options), options)
    return call.network(call.content(picture))


def row(values: np.ndarray, like: NDArray) -> NDArray:
    """A vector as a (1, C) float64 array on the device of `like`."""
    return mx.nd.array(values[None], ctx=like.context, dtype="float64")
