"""Inversion of codes: functions that compute pictures from modified codes.

>>> import fmi.invert
>>> panels = fmi.invert.feature_map("golden_gate.jpg", "relu3_2", [0, 1, 2])  # doctest: +SKIP
>>> panels[0].save("relu3_2_filter0.png")  # doctest: +SKIP

A picture is a path, a PIL image, or an array of 8-bit values: (H, W, 3) RGB, (H, W) grey or
(H, W, 4) RGBA. Except in :func:`direction`, several layers can be given instead of one; their codes
are then inverted together, as in the 2016 code. All functions accept the same further keywords:
those of :class:`fmi.call.Options`, and every field of :class:`fmi.settings.Settings` with a single
value, which overrides that of the preset (for style transfer, also of
:class:`fmi.settings.Transfer`):
``long_edge=256, steps=100, stop=0, denoise=0, pool="max" ...``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from numpy.typing import ArrayLike

from fmi import request
from fmi.call import Call, Filters, Layers, in_one_line, layers_of
from fmi.device.mxnet import NDArray
from fmi.inversion import Inversion, Inversions
from fmi.pictures import Source
from fmi.request import Styles
from fmi.signatures import spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fmi.keywords import Keywords, SeededKeywords, TransferKeywords

__all__ = [
    "Inversion",
    "activations",
    "code",
    "direction",
    "feature_map",
    "gatys",
    "maximise",
    "purposeful",
    "random",
    "rank_match",
]


@spelled_out()
@in_one_line
def code(
    picture: Source,
    layer: Optional[Layers] = None,
    *,
    layers: Optional[Layers] = None,
    **keywords: Unpack[SeededKeywords],
) -> Inversion:
    """Invert a code: compute a picture with the same code as `picture`.

    This is Eq. 1 with the unmodified code as target (Mahendran & Vedaldi 2015).

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values; or a name such as ``"skimage:coffee"``.
    layer, layers
        One or several layers, such as ``"relu3_2"``.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    Inversion
        The picture, (H, W, 3) float32 RGB on the 0-255 scale, with its losses and its record.

    Raises
    ------
    fmi.errors.InputError
        If a layer or a keyword is unknown, the picture cannot be read, or the weights lack a
        layer.
    """
    return request.code(picture, layer, layers, keywords).compute()[0]


@spelled_out()
@in_one_line
def feature_map(
    picture: Source,
    layer: Optional[Layers] = None,
    filters: Optional[Filters] = None,
    chain: bool = False,
    *,
    layers: Optional[Layers] = None,
    **keywords: Unpack[SeededKeywords],
) -> List[Inversion]:
    """Invert single feature maps: show what a filter extracts from a picture (Eq. 1-2, Fig. 3).

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values; or a name such as ``"skimage:coffee"``.
    layer, layers
        One or several layers, such as ``"relu3_2"``, or ``"relu3_2:17"`` with a filter.
    filters
        One or several filters, numbered from 0: a number, a list, ``"0-15"``, or ``"all"``.
    chain
        If true, the target of each filter after the first is computed from the code of the
        previous result, as in the script of 2016 that drew the published Fig. 3. Otherwise, every
        target is computed from `picture` (Eq. 2), and all are inverted in one batch.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    list of Inversion
        One for each filter. After Ctrl-C, filters that have not been started are missing, and so
        are those of a chain after one that has diverged.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`, and if a layer lacks a filter.
    """
    return Inversions(
        request.feature_map(picture, layer, filters, chain, layers, keywords).compute()
    )


@spelled_out()
@in_one_line
def direction(
    picture: Source,
    layer: Layers,
    directions: ArrayLike,
    **keywords: Unpack[SeededKeywords],
) -> List[Inversion]:
    """Invert directions in the space of channels, as :func:`feature_map` does for single filters.

    This is no function of the paper. It extends Eq. 2, in which the direction is that of an axis;
    random directions tell whether filters are special (Bau et al. 2017).

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values; or a name such as ``"skimage:coffee"``.
    layer
        A layer, such as ``"relu3_2"``.
    directions
        (C,) or (D, C), with one number for each feature map of the layer. Each direction is divided
        by its length. :func:`fmi.codes.directions` draws random ones.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    list of Inversion
        One for each direction.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`, and if the directions have another shape, are 0 or are not finite.
    """
    return Inversions(request.direction(picture, layer, directions, keywords).compute())


@spelled_out()
@in_one_line
def maximise(
    picture: Source,
    layer: Layers,
    filters: Optional[Filters] = None,
    **keywords: Unpack[SeededKeywords],
) -> List[Inversion]:
    """Maximise the mean activation of single feature maps (Erhan et al. 2009).

    This is no inversion and no function of the paper, but what inversions are compared with. No
    code is a target; the losses are minus the mean activations.

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values, which has the proportions of the results.
    layer
        One or several layers, such as ``"relu3_2"``, or ``"relu3_2:17"`` with a filter.
    filters
        One or several filters, numbered from 0: a number, a list, ``"0-15"``, or ``"all"``.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`. ``settings="fast"`` is
        advised, whose gradients do not depend on the size of the loss.

    Returns
    -------
    list of Inversion
        One for each filter. Their `explained` is ``None``.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`feature_map`.
    """
    return Inversions(request.maximise(picture, layer, filters, keywords).compute())


@spelled_out()
@in_one_line
def random(
    picture: Source,
    layer: Optional[Layers] = None,
    draws: int = 1,
    seed: int = 0,
    *,
    layers: Optional[Layers] = None,
    **keywords: Unpack[Keywords],
) -> List[Inversion]:
    """Invert randomly modified codes, with energies reallocated at random (Eq. 3-4, Fig. 4).

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values; or a name such as ``"skimage:coffee"``.
    layer, layers
        One or several layers, such as ``"relu3_1"``.
    draws
        Number of pictures. Draw i for a given seed does not depend on this number.
    seed
        Seed of the draws and of the initial picture.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    return Inversions(request.random(picture, layer, draws, seed, layers, keywords).compute())


@spelled_out(transfer=True)
@in_one_line
def purposeful(
    content: Source,
    style: Styles,
    *,
    style_weights: Optional[Sequence[float]] = None,
    strength: Optional[float] = None,
    **keywords: Unpack[TransferKeywords],
) -> Inversion:
    """Transfer the energies of a style picture to a content picture (PMCI, Eq. 5, Fig. 5).

    PMCI stands for purposefully modified code inversion.

    Parameters
    ----------
    content, style
        Paths, PIL images, or arrays of 8-bit values. Several style pictures can be given in a list;
        the mean of their energies is transferred.
    style_weights
        The weight of each style picture in this mean; equal weights by default.
    strength
        From 0, the content alone, over .5, the preset's ``alpha`` and ``beta``, to 1, the style
        alone: they are multiplied by ``2 (1 - strength)`` and ``2 strength``.
    **keywords
        See :class:`fmi.call.Options`, :class:`fmi.settings.Settings` and
        :class:`fmi.settings.Transfer` (``content_layer=``, ``style_layers=``, ``alpha=`` ...).

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`, and if there is no style picture, if `style_weights` are not one
        number for each of them or are all 0, if `strength` is not between 0 and 1, or if the mask
        is black or too dark everywhere.
    """
    return request.purposeful(content, style, keywords, style_weights, strength).compute()[0]


@spelled_out(transfer=True)
@in_one_line
def gatys(
    content: Source,
    style: Styles,
    *,
    style_weights: Optional[Sequence[float]] = None,
    strength: Optional[float] = None,
    **keywords: Unpack[TransferKeywords],
) -> Inversion:
    """Transfer style with Gram matrices (Gatys et al. 2016), the baseline in Fig. 5.

    Parameters
    ----------
    content, style, style_weights, strength
        As for :func:`purposeful`, with Gram matrices in place of energies.
    **keywords
        As for :func:`purposeful`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    return request.gatys(content, style, keywords, style_weights, strength).compute()[0]


@spelled_out()
@in_one_line
def rank_match(
    content: Source,
    style: Source,
    layer: Optional[Layers] = None,
    *,
    layers: Optional[Layers] = None,
    **keywords: Unpack[SeededKeywords],
) -> Inversion:
    """Exchange feature maps by the rank of their energies, an additional mode of the 2016 code.

    Parameters
    ----------
    content, style
        Paths, PIL images, or arrays of 8-bit values.
    layer, layers
        One or several layers, such as ``"relu3_1"``.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    return request.rank_match(content, style, layer, layers, keywords).compute()[0]


@spelled_out()
@in_one_line
def activations(
    picture: Source,
    layer: Optional[Layers] = None,
    *,
    layers: Optional[Layers] = None,
    **keywords: Unpack[SeededKeywords],
) -> Dict[str, NDArray]:
    """Return the codes of a picture, from which the functions above start.

    Parameters
    ----------
    picture
        Path, PIL image, or array of 8-bit values; or a name such as ``"skimage:coffee"``.
    layer, layers
        One or several layers, such as ``"relu3_2"``.
    **keywords
        See :class:`fmi.call.Options` and :class:`fmi.settings.Settings`.

    Returns
    -------
    dict
        The code (1, C, M, N) of each layer.

    Raises
    ------
    fmi.errors.InputError
        As for :func:`code`.
    """
    return Call("activations", layers_of(layer, layers), keywords, {"content": picture}).content
