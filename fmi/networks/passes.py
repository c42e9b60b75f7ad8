"""The network's gradient for a picture as a second forward pass, for the CPU.

A convolution's gradient for its input is a convolution too, with every kernel turned by 180 degrees
and its inputs and outputs exchanged. Written so, both passes run in the kernels and in the memory
layout that MXNet's library for CPUs (oneDNN) is fastest in, the first pass computes each
convolution together with its relu, and no weight is rearranged twice. Automatic differentiation
takes oneDNN's gradient kernels instead, which want other layouts, and copies between them.

Pictures and gradients are (B, 3, H, W) float32, the mean subtracted.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from fmi.device.mxnet import NDArray, mx

CHANNELS = 16  # oneDNN is slow for gradients of 3 channels; the others' kernels are 0


def turned(weight: NDArray) -> NDArray:
    """The kernels of the gradient: (O, I, 3, 3) turned by 180 degrees, as (I, O, 3, 3)."""
    return mx.nd.flip(weight.transpose((1, 0, 2, 3)), axis=(2, 3))


def turned_weights(weights: Mapping[str, NDArray], first: str) -> Dict[str, NDArray]:
    """:func:`turned` for each of ``<convolution>_weight``; those of `first` get CHANNELS outputs.

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
    """The symbol of the first pass, and the layers whose codes the second pass needs.

    Its outputs are those codes as they are, then the codes of `wanted` in float32 and in the
    plain layout, for the loss.

    Parameters
    ----------
    symbols
        Each layer's symbol, from ``conv1_1`` to the deepest.
    wanted
        Layers whose codes the loss needs.
    dtype
        Number format of the activations.
    """
    kept = [name for name in symbols if name.startswith("relu")]
    plain = [
        mx.sym.reshape(symbols[name], shape=(0, 0, 0, 0))
        if dtype is np.float32
        else mx.sym.amp_cast(symbols[name], dtype="float32")
        for name in wanted
    ]
    return mx.sym.Group([symbols[name] for name in kept] + plain), kept


def backward_symbol(
    layers: Sequence[str], inputs: Mapping[str, int], wanted: Sequence[str], dtype: Any
) -> Any:
    """The symbol of the second pass: from the gradients of codes to that of the picture.

    Its arguments are ``gradient_<layer>`` for each of `wanted`, float32; ``code_<layer>`` for
    each relu; the turned weights under the convolutions' own names.

    Parameters
    ----------
    layers
        From ``conv1_1`` to the deepest.
    inputs
        Number of feature maps that each convolution's gradient has.
    wanted
        Layers whose codes the loss needs.
    dtype
        Number format of the codes and weights.

    Notes
    -----
    MXNet's gradients of relu and of average pooling are operators that have no Python function.
    Others hold their places here and are exchanged in the symbol's JSON.
    """
    relus = [name for name in layers if name.startswith("relu")]
    codes = {name: mx.sym.var(f"code_{name}", dtype=dtype) for name in relus}
    exchanged: Dict[str, Dict[str, Any]] = {}
    node = None
    for place in range(len(layers) - 1, -1, -1):
        name, back = layers[place], f"{layers[place]}_back"
        if name in wanted:
            own = mx.sym.var(f"gradient_{name}", dtype="float32")
            if node is None and name.startswith("relu"):  # both plain: nothing to rearrange
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
            node = mx.sym.where(node, codes[layers[place - 1]], node, name=back)
            exchanged[back] = POOLING
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
    return _exchange(mx.sym.slice_axis(node, axis=1, begin=0, end=3), exchanged)


RELU = {"op": "_backward_Activation", "attrs": {"act_type": "relu"}}
POOLING = {
    "op": "_backward_Pooling",
    "attrs": {"kernel": "(2, 2)", "stride": "(2, 2)", "pool_type": "avg"},
}


def _cast(node: Any, dtype: Any) -> Any:
    """From float32 to `dtype`."""
    return node if dtype is np.float32 else mx.sym.amp_cast(node, dtype=dtype)


def _exchange(symbol: Any, operators: Mapping[str, Mapping[str, Any]]) -> Any:
    """`symbol` with other operators in the named nodes.

    The gradient of pooling cannot tell its shape by itself: MXNet takes it from a node that it
    depends on, here a pooling of the same code that computes a single position of each map.
    """
    graph = json.loads(symbol.tojson(remove_amp_cast=False))
    nodes = graph["nodes"]
    for node in list(nodes):
        if node["name"] not in operators:
            continue
        node.update(operators[node["name"]])
        if node["op"] == POOLING["op"]:
            attrs = {"kernel": "(1, 1)", "stride": "(65536, 65536)", "pool_type": "avg"}
            shape = {"op": "Pooling", "name": f"{node['name']}_shape", "attrs": attrs}
            node["control_deps"] = [len(nodes)]
            nodes.append({**shape, "inputs": [node["inputs"][1]]})
    return mx.sym.load_json(json.dumps(graph))


@contextlib.contextmanager
def _subgraphs(backend: str) -> Iterator[None]:
    """Let executors that are bound here use MXNet's fused operators, or none."""
    wanted = {"MXNET_SUBGRAPH_BACKEND": backend, "MXNET_SUBGRAPH_VERBOSE": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Passes:
    """Both passes for pictures of one shape, every array in its place beforehand.

    Parameters
    ----------
    symbols
        Each layer's symbol, from ``conv1_1`` to the deepest; the picture is called ``data``.
    weights
        Arrays that the symbols need, of `dtype`.
    turned
        :func:`turned_weights`, of `dtype`.
    wanted
        Layers whose codes the loss needs.
    shape
        (B, 3, H, W).
    dtype
        Number format of the codes and weights.

    Attributes
    ----------
    image
        The pictures of the last forward pass.
    codes, gradients
        Of the wanted layers, float32: what the first pass writes and the second one reads.
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
        with _subgraphs("MKLDNN"):  # convolution and relu in one
            self._forward = _bind(forward, {**weights, "data": self.image})
        outputs = self._forward.outputs
        self.codes: Dict[str, NDArray] = dict(zip(wanted, outputs[len(kept) :]))
        self.gradients = {name: mx.nd.zeros(code.shape) for name, code in self.codes.items()}
        inputs = {name[: -len("_weight")]: len(array) for name, array in turned.items()}
        arguments = {**turned, **{f"code_{n}": a for n, a in zip(kept, outputs)}}
        arguments.update({f"plain_{n}": a for n, a in self.codes.items()})
        arguments.update({f"gradient_{n}": a for n, a in self.gradients.items()})
        with _subgraphs("NONE"), _silence():
            symbol = backward_symbol(list(symbols), inputs, wanted, dtype)
            self._backward = _bind(symbol, arguments)

    def forward(self, image: NDArray) -> Dict[str, NDArray]:
        """The codes, marked for automatic differentiation; the next call overwrites them."""
        image.copyto(self.image)
        self._forward.forward(is_train=False)
        mx.autograd.mark_variables(
            [self.codes[name] for name in self.wanted],
            [self.gradients[name] for name in self.wanted],
        )
        return self.codes

    def backward(self) -> NDArray:
        """The picture's gradient, from those that automatic differentiation gave the codes."""
        return self._backward.forward(is_train=False)[0]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep MXNet's note that no subgraphs are used, one each time, from the standard error."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def _bind(symbol: Any, arrays: Mapping[str, NDArray]) -> Any:
    names = symbol.list_arguments()
    return symbol.bind(mx.cpu(), {name: arrays[name] for name in names}, grad_req="null")
