"""Networks by name, file or block: the accepted values of ``network=`` and ``weights=``."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from fmi.device.mxnet import mx
from fmi.errors import InputError, shown, unknown
from fmi.networks import gluon, vgg
from fmi.networks import weights as weights_
from fmi.networks.base import Input, Network, input_of
from fmi.networks.topology import FAMILY
from fmi.networks.weights import Weights
from fmi.sources import table

__all__ = ["ASSUMED", "FAMILY_NAME", "State", "load", "outline", "zoo", "zoo_file"]

log = logging.getLogger(__name__)

FAMILY_NAME = re.compile(r"vgg(11|13|16|19)(_bn)?")
ASSUMED = "imagenet"  # default input of networks outside of the VGG family


def load(
    network: Any = None,
    weights: Union[str, Path, Weights] = "auto",
    input: Union[None, str, Input] = None,  # noqa: A002
    layers: Sequence[str] = (),
) -> Network:
    """Load a network by name, from files, or from a Gluon block or symbol.

    Parameters
    ----------
    network
        One of

        - ``None``: the VGG network of `weights`;
        - a loaded network, which is returned as is;
        - a Gluon ``HybridBlock`` with its parameters, on any device;
        - a tuple of a symbol and its parameters, or a symbol whose parameters are in the file
          `weights`;
        - an exported pair: ``x-symbol.json`` or ``x-0000.params``, or their common prefix ``x``;
        - a name from Gluon's model zoo, such as ``"resnet18_v1"``, whose parameters are in the
          file `weights`;
        - any value that `weights` accepts.
    weights
        As for :func:`fmi.networks.weights.load`, or the parameter file of `network`.
    input
        The preprocessing: ``"caffe"``, ``"imagenet"``, or an Input. It must be omitted for the VGG
        family, whose files define it; the default for other networks is ``"imagenet"``.
    layers
        Layers that ``weights="auto"`` must cover.

    Raises
    ------
    InputError
        If the network does not exist or cannot be used.
    """
    if not isinstance(weights, (str, Path, Weights)):
        raise InputError(f"weights={shown(weights)} must be a name or a path")
    if isinstance(network, Network):
        if str(weights) != "auto" or input is not None:
            raise InputError(
                "a loaded network already has weights and an input: omit weights= and input="
            )
        return network
    if isinstance(network, Weights):
        network, weights = None, network
    if network is None:
        return _family(weights, layers, input)
    if isinstance(network, mx.gluon.HybridBlock):
        _without(weights, "a block already has its parameters")
        return gluon.from_block(network, _input(input, network.name))
    if isinstance(network, (tuple, list)) and network and isinstance(network[0], mx.sym.Symbol):
        _without(weights, "the parameters of the symbol are already given")
        return gluon.from_symbol(network[0], _parameters(network[1:]), _input(input, "the symbol"))
    if isinstance(network, mx.sym.Symbol):
        arrays = gluon.read_parameters(_file(weights, "the symbol"))
        return gluon.from_symbol(network, arrays, _input(input, "the symbol"))
    if isinstance(network, mx.gluon.Block):
        raise InputError(
            f"{type(network).__name__} is a Block, which MXNet cannot convert to a graph; derive"
            " it from HybridBlock instead"
        )
    if not isinstance(network, (str, Path)):
        raise InputError(
            "network must be a name, a path, a HybridBlock or a symbol with its parameters,"
            f" not {type(network).__name__}"
        )
    return _named(network, weights, input, layers)


def _named(
    network: Union[str, Path],
    weights: Union[str, Path, Weights],
    input: Union[None, str, Input],  # noqa: A002
    layers: Sequence[str],
) -> Network:
    text = str(network)
    member = FAMILY_NAME.fullmatch(text)
    if member and (str(weights) != "auto" or text not in table.models()):
        found = _family(weights, layers, input)
        if found.topology.name != f"VGG-{member[1]}":
            raise InputError(
                f"{found.weights.path} contains {found.topology.name}, not {text}; pass the"
                f" weights of {text} with weights="
            )
        return found
    if text in ("auto", "embedded", *table.models()):
        _without(weights, f"{text} already names its weights")
        return _family(text, layers, input)
    if text in zoo():
        file = zoo_file(text) if str(weights) == "auto" else Path(str(weights))
        if file is None:
            raise InputError(
                f"the parameters of {text} were not found: pass the path of their .params file"
                f" with weights=, or save it as {text}.params in a folder listed in FMI_MODELS"
            )
        return _from_files(text, None, _state(file), _input(input, text))
    try:
        pair = gluon.exported_pair(Path(text))
    except (OSError, ValueError) as error:
        raise InputError(
            f"network {shown(text)} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if pair:
        _without(weights, f"the weights are in {pair[1]}")
        return _from_files(None, _state(pair[0]), _state(pair[1]), _input(input, text))
    if Path(text).is_file():
        _without(weights, f"the weights are in {text}")
        return _family(text, layers, input)
    known = ("embedded", *table.models(), *zoo(), "or a path")
    raise unknown("network", text, known)


def outline(network: Any, weights: Union[str, Path] = "auto") -> Network:
    """Load a network for inspection: as :func:`load`, but known names need no weights file.

    If the weights file is missing, all weights are 0.
    """
    text = str(network)
    member = FAMILY_NAME.fullmatch(text)
    if str(weights) != "auto" or not (member or text in zoo()):
        return load(network, weights)
    if member:
        try:
            return load(network)
        except InputError:
            return vgg.outline(next(m for m in FAMILY if m.name == f"VGG-{member[1]}"))
    if zoo_file(text) is None:
        return gluon.from_zoo(text, None, input_of(ASSUMED))
    return load(network)


def zoo() -> Tuple[str, ...]:
    """Return the names in Gluon's model zoo."""
    from mxnet.gluon.model_zoo.model_store import _model_sha1

    return tuple(sorted(_model_sha1))


def zoo_file(name: str) -> Optional[Path]:
    """Return the parameter file of a model-zoo network, if one of the weights folders has it."""
    pattern = re.compile(re.escape(name) + r"(-[0-9a-f]{8})?\.params")
    for folder in table.folders("models"):
        for file in sorted(folder.glob("*.params")) if folder.is_dir() else []:
            if pattern.fullmatch(file.name):
                return file
    return None


def _family(
    weights: Union[str, Path, Weights],
    layers: Sequence[str],
    input: Union[None, str, Input],  # noqa: A002
) -> vgg.VGG:
    if input is not None:
        raise InputError(
            "input= cannot be used with the VGG family, whose files define it; omit it"
        )
    return vgg.network(weights_.load(weights, layers))


def _input(given: Union[None, str, Input], name: str) -> Input:
    if given is None:
        _warn(
            f"{name}: assuming ImageNet preprocessing, (RGB/255 - mean) / std; if the network was"
            " trained differently, pass input="
        )
        return input_of(ASSUMED)
    return input_of(given)


@functools.lru_cache(maxsize=None)
def _warn(message: str) -> None:
    """Log a warning once per process, since a figure loads the same network many times."""
    log.warning("%s", message)


def _without(weights: Any, reason: str) -> None:
    if str(weights) != "auto":
        raise InputError(f"{reason}: omit weights=")


def _parameters(given: Sequence[Any]) -> Mapping[str, Any]:
    """Merge one dictionary, or the two that ``mx.model.load_checkpoint`` returns, into one."""
    merged: Dict[str, Any] = {}
    for part in given:
        if not isinstance(part, Mapping):
            raise InputError(
                f"the parameters of a symbol must be in a dict, not {type(part).__name__}"
            )
        merged.update(part)
    return merged


def _file(weights: Any, name: str) -> Path:
    if str(weights) == "auto" or not table.is_file(Path(str(weights))):
        raise InputError(f"{name} needs parameters: pass the path of a .params file with weights=")
    return Path(str(weights))


State = Tuple[Path, int, int]  # a file, its modification time and its size


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    return path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=2)
def _from_files(
    name: Optional[str], graph: Optional[State], parameters: State, how: Input
) -> Network:
    """Return a network from files; it is cached until the files change."""
    if graph:
        return gluon.from_export(graph[0], parameters[0], how)
    return gluon.from_zoo(str(name), parameters[0], how)
