"""The gradient with respect to a picture, computed as a second forward pass on the CPU.

The gradient of a convolution with respect to its input is again a convolution, whose kernels are
rotated by 180 degrees and whose input and output channels are exchanged. In this form, both passes
use the fastest kernels and memory layout of oneDNN, MXNet's library for CPUs; the first pass fuses
each convolution with its relu; and no weight is reordered twice. Automatic differentiation uses
oneDNN's gradient kernels instead, which need other layouts and therefore copies.

Pictures and gradients are (B, 3, H, W) float32 with the mean subtracted.

Threads may compute at the same time, each with its own :class:`Passes`. They are bound one after
the other, because MXNet can be told only by an environment variable not to change the second pass,
and prints a note about it on standard error. For the few milliseconds this takes, the variable is
set for the whole process, and what other threads print is held back. Processes have no such
restrictions.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from fmi.device.mxnet import NDArray, mx

__all__ = [
    "CHANNELS",
    "EVEN",
    "POOLING",
    "RELU",
    "Passes",
    "backward_symbol",
    "forward_symbol",
    "turned",
    "turned_weights",
]

CHANNELS = 16  # oneDNN is slow for 3 output channels; the kernels of the additional ones are 0
EVEN = "even_"  # before the name of an activation: with zeros up to even sizes


def turned(weight: NDArray) -> NDArray:
    """Return the kernels of the gradient: (O, I, 3, 3) rotated by 180 degrees, as (I, O, 3, 3)."""
    return mx.nd.flip(weight.transpose((1, 0, 2, 3)), axis=(2, 3))


def turned_weights(weights: Mapping[str, NDArray], first: str) -> Dict[str, NDArray]:
    """Apply :func:`turned` to each ``<convolution>_weight``; pad `first` to CHANNELS outputs.

    Parameters
    ----------
    weights
        float32 arrays (O, I, 3, 3).
    first
        Name of the convolution whose input is the picture.
    """
    found = {}
    for name, weight in weights.items():
        kernels = turned(weight)
        if name == f"{first}_weight" and len(kernels) < CHANNELS:
            rest = mx.nd.zeros((CHANNELS - len(kernels), *kernels.shape[1:]), ctx=kernels.context)
            kernels = mx.nd.concat(kernels, rest, dim=0)
        found[name] = kernels
    return found


def forward_symbol(
    symbols: Mapping[str, Any], wanted: Sequence[str], dtype: Any
) -> Tuple[Any, List[str]]:
    """Return the symbol of the first pass, and the layers whose codes the second pass needs.

    The outputs are these codes in their internal layout, followed by the codes of `wanted` in
    float32 and in the standard layout, for the loss.

    Parameters
    ----------
    symbols
        Symbol of each layer, from ``conv1_1`` to the deepest, with activations of even sizes.
    wanted
        Layers whose codes the loss needs.
    dtype
        Number format of the activations.
    """
    kept = list(_kept(symbols).values())
    plain = [
        mx.sym.reshape(symbols[name], shape=(0, 0, 0, 0))
        if dtype is np.float32
        else mx.sym.amp_cast(symbols[name], dtype="float32")
        for name in wanted
    ]
    return mx.sym.Group([symbols[name] for name in kept] + plain), kept


def _kept(layers: Iterable[str]) -> Dict[str, str]:
    """Return, for each activation, the name of its code in the second pass."""
    names = list(layers)
    return {
        name: f"{EVEN}{name}" if f"{EVEN}{name}" in names else name
        for name in names
        if name.startswith("relu")
    }


def backward_symbol(
    layers: Sequence[str],
    inputs: Mapping[str, int],
    wanted: Sequence[str],
    dtype: Any,
    size: Sequence[int],
) -> Any:
    """Return the symbol of the second pass, from the gradients of codes to that of the picture.

    Its arguments are ``gradient_<layer>`` for each of `wanted`, float32; ``code_<layer>`` for
    each relu, of even size where there is one; and the rotated weights under the names of the
    convolutions.

    Between a pooling whose sizes are rounded up and the one before it, gradients have the even
    sizes. This is exact, as the zeros in the codes make all gradients 0 that lie outside of the
    true size, and it saves cropping, for which oneDNN would have to change the memory layout.

    Parameters
    ----------
    layers
        Names of the layers from ``conv1_1`` to the deepest, with activations of even sizes.
    inputs
        Number of feature maps of the gradient of each convolution.
    wanted
        Layers whose codes the loss needs.
    dtype
        Number format of the codes and weights.
    size
        Height and width of the pictures.

    Notes
    -----
    The operators for the gradients of relu and of average pooling have no Python function in
    MXNet. Placeholders are used here and replaced in the symbol's JSON.
    """
    kept = _kept(layers)
    codes = {name: mx.sym.var(f"code_{own}", dtype=dtype) for name, own in kept.items()}
    layers = [name for name in layers if not name.startswith(EVEN)]
    exchanged: Dict[str, Dict[str, Any]] = {}
    node, even = None, False
    for place in range(len(layers) - 1, -1, -1):
        name, back = layers[place], f"{layers[place]}_back"
        poolings = sum(other.startswith("pool") for other in layers[: place + 1])
        height, width = (-(-side // 2**poolings) for side in size)
        if name in wanted:
            own = mx.sym.var(f"gradient_{name}", dtype="float32")
            if even:
                widths = (0, 0, 0, 0, 0, height % 2, 0, width % 2)
                own = mx.sym.pad(own, mode="constant", constant_value=0, pad_width=widths)
            if node is None and name.startswith("relu"):  # both in the standard layout: no reorder
                node = mx.sym.elemwise_mul(own, mx.sym.var(f"plain_{name}"), name=back)
                exchanged[back] = RELU
                node = _cast(node, dtype)
                continue
            own = _cast(own, dtype)
            node = own if node is None else mx.sym.elemwise_add(node, own)
        if name.startswith("relu"):
            node = mx.sym.elemwise_mul(node, codes[name], name=back)
            exchanged[back] = RELU
        elif name.startswith("pool"):
            if even:
                node = mx.sym.slice(node, begin=(0, 0, 0, 0), end=(None, None, height, width))
            before = layers[place - 1]
            node = mx.sym.where(node, codes[before], node, name=back)
            exchanged[back] = POOLING
            even = kept[before] != before
        else:
            node = mx.sym.Convolution(
                node,
                mx.sym.var(f"{name}_weight", dtype=dtype),
                kernel=(3, 3),
                pad=(1, 1),
                num_filter=inputs[name],
                no_bias=True,
                name=back,
            )
    if dtype is not np.float32:
        node = mx.sym.amp_cast(node, dtype="float32")
    node = mx.sym.slice(node, begin=(0, 0, 0, 0), end=(None, 3, *size))
    return _exchange(node, exchanged)


RELU = {"op": "_backward_Activation", "attrs": {"act_type": "relu"}}
POOLING = {
    "op": "_backward_Pooling",
    "attrs": {"kernel": "(2, 2)", "stride": "(2, 2)", "pool_type": "avg"},
}


def _cast(node: Any, dtype: Any) -> Any:
    """Cast a float32 symbol to `dtype`."""
    return node if dtype is np.float32 else mx.sym.amp_cast(node, dtype=dtype)


def _exchange(symbol: Any, operators: Mapping[str, Mapping[str, Any]]) -> Any:
    """Replace the operators of the named nodes of a symbol.

    The shape of the gradient of pooling cannot be inferred from its inputs. MXNet takes it from a
    control dependency, here a pooling of the same code that computes one position of each map.

    The gradient of relu would overwrite its input, for which MXNet computes it elsewhere and copies
    it back. Another such pooling, on which the next layer depends, keeps the input alive.
    """
    graph = json.loads(symbol.tojson(remove_amp_cast=False))
    nodes = graph["nodes"]
    position = {"kernel": "(1, 1)", "stride": "(65536, 65536)", "pool_type": "avg"}
    for index, node in enumerate(list(nodes)):
        if node["name"] not in operators:
            continue
        node.update(operators[node["name"]])
        pooled = {"op": "Pooling", "name": f"{node['name']}_position", "attrs": position}
        if node["op"] == POOLING["op"]:
            node["control_deps"] = [len(nodes)]
            nodes.append({**pooled, "inputs": [node["inputs"][1]]})
        else:
            for later in nodes:
                if [index, 0, 0] in later["inputs"]:
                    later["control_deps"] = [len(nodes)]
            nodes.append({**pooled, "inputs": [node["inputs"][0]]})
    return mx.sym.load_json(json.dumps(graph))


_binding = threading.Lock()  # the environment and standard error belong to the whole process
_VARIABLE = "MXNET_SUBGRAPH_BACKEND"
_NOTE = re.compile(rb"\[[\d:]+\] \S+: MXNET_SUBGRAPH_BACKEND=NONE .*\n")


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Let MXNet bind symbols as they are; by default, it tries to fuse operators in all of them.

    It cannot do this in graphs with control dependencies (:func:`_exchange`).
    """
    with _binding, _held_back():
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "NONE"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold back what is written to standard error, and write it afterwards without MXNet's note."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as written, os.fdopen(before, "wb") as standard_error:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            written.seek(0)
            standard_error.write(_NOTE.sub(b"", written.read()))


class Passes:
    """Both passes for pictures of one shape, with all arrays allocated in advance.

    Parameters
    ----------
    symbols
        Symbol of each layer, from ``conv1_1`` to the deepest. The input is named ``data``.
    weights
        Arrays that the symbols need, in `dtype`.
    turned
        Result of :func:`turned_weights`, in `dtype`.
    wanted
        Layers whose codes the loss needs.
    shape
        Shape of the pictures, (B, 3, H, W).
    dtype
        Number format of the codes and weights.

    Attributes
    ----------
    image
        The pictures of the last forward pass.
    codes, gradients
        Codes of the wanted layers, written by the first pass, and their gradients, read by the
        second one; float32.
    """

    def __init__(
        self,
        symbols: Mapping[str, Any],
        weights: Mapping[str, NDArray],
        turned: Mapping[str, NDArray],
        wanted: Sequence[str],
        shape: Tuple[int, ...],
        dtype: Any,
    ) -> None:
        self.wanted = list(wanted)
        self.image = mx.nd.zeros(shape)
        forward, kept = forward_symbol(symbols, wanted, dtype)
        forward = forward.optimize_for("MKLDNN")  # fuse convolution and relu
        with _unchanged():
            self._forward = _bind(forward, {**weights, "data": self.image})
        outputs = self._forward.outputs
        self.codes: Dict[str, NDArray] = dict(zip(wanted, outputs[len(kept) :]))
        self.gradients = {name: mx.nd.zeros(code.shape) for name, code in self.codes.items()}
        inputs = {name[: -len("_weight")]: len(array) for name, array in turned.items()}
        arguments = {**turned, **{f"code_{n}": a for n, a in zip(kept, outputs)}}
        arguments.update({f"plain_{n}": a for n, a in self.codes.items()})
        arguments.update({f"gradient_{n}": a for n, a in self.gradients.items()})
        backward = backward_symbol(list(symbols), inputs, wanted, dtype, shape[2:])
        with _unchanged():
            self._backward = _bind(backward, arguments)

    def forward(self, image: NDArray) -> Dict[str, NDArray]:
        """Return the codes, marked for automatic differentiation; the next call overwrites them."""
        image.copyto(self.image)
        self._forward.forward(is_train=False)
        mx.autograd.mark_variables(
            [self.codes[name] for name in self.wanted],
            [self.gradients[name] for name in self.wanted],
        )
        return self.codes

    def backward(self) -> NDArray:
        """Return the gradient of the pictures, given the gradients of the codes."""
        return self._backward.forward(is_train=False)[0]


def _bind(symbol: Any, arrays: Mapping[str, NDArray]) -> Any:
    names = symbol.list_arguments()
    return symbol.bind(mx.cpu(), {name: arrays[name] for name in names}, grad_req="null")
