"""Other convolutional networks: Gluon blocks, symbols with parameters, exported pairs.

The layers are the outputs of convolutions, activations, poolings, additions and concatenations.
They have the names of the symbol without the common prefix and without ``_fwd``, and with ``_`` in
place of colons, commas and spaces, which separate layers and filters; a block that is used several
times has a layer for each use, ``relu0``, ``relu0_2`` and so on. Everything after the last layer
with spatial positions is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from fmi.device.mxnet import Context, NDArray, mx
from fmi.errors import InputError
from fmi.networks.base import Input, Layer, Network, Truncated, frozen_block
from fmi.networks.reach import Reaches, of_graph, pair
from fmi.sources import formats

__all__ = [
    "KINDS",
    "LARGER_LOOK",
    "LARGEST_GRAPH",
    "LARGEST_SIDE",
    "LOOK",
    "NORMS",
    "PARAMETERS",
    "POSITIVE",
    "REFUSED",
    "Arrays",
    "Node",
    "Shape",
    "SymbolNetwork",
    "exported_pair",
    "from_block",
    "from_export",
    "from_symbol",
    "from_zoo",
    "read_parameters",
]

Arrays = Mapping[str, np.ndarray]
Shape = Tuple[int, ...]

KINDS = {  # operator -> kind of layer
    "Convolution": "convolution",
    "Deconvolution": "convolution",
    "Activation": "activation",
    "LeakyReLU": "activation",
    "relu": "activation",
    "sigmoid": "activation",
    "clip": "activation",  # ReLU6
    "_contrib_BatchNormWithReLU": "activation",
    "Pooling": "pooling",
    "elemwise_add": "addition",
    "broadcast_add": "addition",
    "_plus": "addition",
    "_Plus": "addition",
    "add_n": "addition",
    "ElementWiseSum": "addition",
    "Concat": "concatenation",
    "concat": "concatenation",
}
# BatchNorm, which uses its moving averages, and its variants.
NORMS = ("BatchNorm", "BatchNorm_v1", "_contrib_BatchNormWithReLU", "_contrib_SyncBatchNorm")
POSITIVE = {"relu", "sigmoid", "softrelu"}  # activations that are never negative
# Suffixes of the parameter names in Gluon and MXNet.
PARAMETERS = ("weight", "bias", "gamma", "beta", "mean", "var", "alpha")
# These operators run code or use memory addresses that a file could specify.
REFUSED = ("Custom", "_Native", "_NDArray", "_CustomFunction", "_TensorRT", "_FusedOp")
LOOK = 256  # side in pixels of the picture that determines which outputs have positions
LARGER_LOOK = 512
LARGEST_SIDE = 2048  # upper limit of the search in smallest_side
LARGEST_GRAPH = 64 << 20  # largest size of a symbol's JSON, in bytes


@dataclass(frozen=True)
class Node:
    """Properties of the output of an operator, found by traversing the graph.

    Stride and receptive field are given along rows and along columns.
    """

    stride: Sequence[float] = (1, 1)
    receptive_field: Sequence[float] = (1, 1)
    negative: bool = True
    spatial: bool = True


class SymbolNetwork(Network):
    """A network given as a symbol and its parameters.

    Parameters
    ----------
    symbol
        Symbol whose only input is a picture (B, 3, H, W). Operators after the last spatial layer
        are ignored.
    parameters
        float32 arrays by the names in the symbol.
    name
        Name for display.
    how
        The preprocessing that the network expects.

    Raises
    ------
    InputError
        If the symbol has several inputs, no layer, a parameter without values, or another layout
        than NCHW.
    """

    def __init__(self, symbol: Any, parameters: Arrays, name: str, how: Input) -> None:
        super().__init__()
        self.name = name
        self.input = how
        self.mean = how.colour
        self.settings = "fast"  # scale-free; the others are tuned to the activations of Caffe's VGG
        self._graph = _Graph(symbol, set(parameters), name)
        self._data = self._graph.data
        self._known_shapes: Dict[Tuple[int, int], Dict[str, Shape]] = {}
        self._parameters = parameters
        self.layers = self._layers()
        needed = self._group([layer.name for layer in self.layers]).list_inputs()
        lacking = [n for n in needed if n != self._data and n not in parameters]
        if lacking:
            raise InputError(f"the parameter {lacking[0]} of {name} is missing")
        self._parameters = {n: parameters[n] for n in needed if n != self._data}
        self._digest = self._graph.digest(self._parameters)

    def _layers(self) -> Tuple[Layer, ...]:
        outputs = self._graph.outputs
        shapes = self._shapes(LOOK, LOOK)
        found = []
        for name, (kind, node, _) in outputs.items():
            shape = shapes.get(name, ())
            if len(shape) != 4 or shape[2] * shape[3] == 1:
                continue
            stride, field = max(1, round(max(node.stride))), round(max(node.receptive_field))
            found.append(Layer(name, kind, shape[1], stride, field, node.negative))
        if not found:
            raise InputError(
                f"{self.name} has no layer with feature maps for a picture of"
                f" {LOOK} x {LOOK} pixels"
            )
        return tuple(found)

    def _group(self, layers: Sequence[str]) -> Any:
        return mx.sym.Group([self._graph.outputs[name][2] for name in layers])

    def _shapes(self, height: int, width: int) -> Dict[str, Shape]:
        """Return the shapes of all outputs that are not empty for one picture of this size."""
        if (height, width) not in self._known_shapes:
            names = tuple(self._graph.outputs)
            found = self.infer(names, height, width)
            if found:
                shapes = dict(zip(names, found))
            else:
                each = ((name, self.infer([name], height, width)) for name in names)
                shapes = {name: one[0] for name, one in each if one}
            self._known_shapes[height, width] = shapes
        return self._known_shapes[height, width]

    def infer(self, layers: Sequence[str], height: int, width: int) -> Optional[List[Shape]]:
        """Infer the shapes of layers; return ``None`` if the picture is too small for one."""
        try:
            found = self._output_shapes(self._group(layers), height, width)
        except mx.MXNetError:
            return None
        return found if found and all(min(shape or (0,)) > 0 for shape in found) else None

    def _output_shapes(self, symbol: Any, height: int, width: int) -> List[Shape]:
        """Return the shapes of a symbol's outputs for one picture; raise an MXNetError if none."""
        inputs = symbol.list_inputs()
        known = {n: a.shape for n, a in self._parameters.items() if n in inputs}
        # infer_shape would print its arguments on failure.
        _, found, _ = symbol.infer_shape_partial(**{**known, self._data: (1, 3, height, width)})
        return found or []

    def sizes(self, height: int, width: int) -> Dict[str, Tuple[int, int]]:
        """Return the size of the feature maps of each layer; omit layers that would be empty."""
        known = {layer.name for layer in self.layers}
        shapes = self._shapes(height, width)
        return {name: (s[2], s[3]) for name, s in shapes.items() if name in known}

    def smallest_side(self, layer: str) -> int:
        """Find the smallest side, in pixels, of a picture for `layer`, by bisection."""
        low, high = 1, LARGEST_SIDE
        while low < high:
            middle = (low + high) // 2
            if self.infer([layer], middle, middle):
                high = middle
            else:
                low = middle + 1
        return low

    def reach(self, layer: str) -> Reaches:
        """Return the reach of a layer, unless an operator before it combines all positions."""
        name = self.layer(layer).name
        shapes = {n: array.shape for n, array in self._parameters.items()}
        found = of_graph(self._graph.nodes, self._data, shapes)[self._graph.outputs[name][2].name]
        if not isinstance(found, tuple):
            where = found.operator if found else "no input"
            raise InputError(
                f"{name} of {self.name} cannot be computed in tiles, because of {where}, which may"
                " depend on the whole picture: choose a shallower layer, a smaller long_edge, or"
                " more memory"
            )
        return found

    def nodes(self, layers: Iterable[str]) -> List[int]:
        """Return the index of the operator of each layer among the nodes of the symbol."""
        places = {node["name"]: place for place, node in enumerate(self._graph.nodes)}
        return [places[self._graph.outputs[self.layer(name).name][2].name] for name in layers]

    def picture_bytes(
        self, layers: Sequence[str], height: int, width: int, _precision: str = "float32"
    ) -> int:
        """Add up the outputs of all operators, and as much again for the gradients."""
        inner = self._group(layers).get_internals()
        found = self._output_shapes(inner, height, width)
        names = set(inner.list_inputs())
        room = [
            4 * int(np.prod(shape))
            for name, shape in zip(inner.list_outputs(), found)
            if name not in names
        ]
        return 2 * sum(room)

    def describe(self) -> Dict[str, Any]:
        """Return the name, a digest of operators and parameters, and the preprocessing."""
        return {
            "name": self.name,
            "sha256": self._digest,
            "input": {
                "channels": self.input.channels,
                "scale": self.input.scale,
                "mean": list(self.input.mean),
                "std": list(self.input.std),
            },
            "mean": list(self.mean),
            "default_settings": self.settings,
        }

    def _truncate(
        self, layers: Sequence[str], _pool: str, _rounding: str, ctx: Context, _precision: str
    ) -> Truncated:
        picture = mx.sym.var("data", dtype="float32")
        deviation = np.array(self.input.deviation, dtype=np.float32)
        if self.input.channels == "BGR":
            picture, deviation = mx.sym.flip(picture, axis=1), deviation[::-1]
        parameters = {name: mx.nd.array(a) for name, a in self._parameters.items()}
        if (deviation != 1).any():
            name = "fmi_input_deviation"
            parameters[name] = mx.nd.array(deviation.reshape((1, 3, 1, 1)))
            picture = mx.sym.broadcast_div(picture, mx.sym.var(name, shape=(1, 3, 1, 1)))
        symbol = self._group(layers)(**{self._data: picture})
        return Truncated(layers, frozen_block(symbol, parameters, {}, ctx))


class _Graph:
    """The graph of a symbol: its input, and the operators whose outputs can be layers."""

    def __init__(self, symbol: Any, parameters: Set[str], network: str) -> None:
        graph = json.loads(symbol.tojson())
        self.nodes = graph["nodes"]
        for node in self.nodes:
            if node["op"] == "null":
                node.get("attrs", {}).pop("__dtype__", None)  # all arrays are float32 here
            layout = (node.get("attrs") or {}).get("layout", "None")
            # MXNet computes NHWC on GPUs alone, and never ends on CPUs.
            if node["op"] != "null" and layout.endswith("C"):
                raise InputError(
                    f"{node['name']} of {network} has the layout {layout}, but fmi supports only"
                    " networks whose channels come before rows and columns, as in NCHW"
                )
        _number_repeated(self.nodes)
        self.data = self._picture(parameters, network)
        graph = self._in_inference_mode(graph)
        symbol = mx.sym.load_json(json.dumps({**graph, "nodes": _differentiable(self.nodes)}))
        inner = symbol.get_internals()
        places = {name: place for place, name in enumerate(inner.list_outputs())}
        found = self._walk()
        gated = _gated(self.nodes)
        chosen = [
            (node, gated.get(place, place))
            for place, node in enumerate(self.nodes)
            if node["op"] in KINDS and found[place].spatial and f"{node['name']}_output" in places
        ]
        if not chosen:
            raise InputError(f"{network} has no layer with feature maps")
        prefix = os.path.commonprefix([node["name"] for node, _ in chosen])
        prefix = prefix[: prefix.rfind("_") + 1]
        self.outputs: Dict[str, Tuple[str, Node, Any]] = {}
        for node, place in chosen:
            short = re.sub("_fwd$", "", node["name"][len(prefix) :]) or node["name"]
            short, full = (re.sub(r"[:,\s]", "_", each) for each in (short, node["name"]))
            name = short if short not in self.outputs else full
            output = inner[places[f"{self.nodes[place]['name']}_output"]]
            self.outputs[name] = (KINDS[node["op"]], found[place], output)

    def _picture(self, parameters: Set[str], network: str) -> str:
        """Return the name of the input for the picture."""
        inputs = [
            node["name"]
            for node in self.nodes
            if node["op"] == "null"
            and node["name"] not in parameters
            and not node["name"].endswith((*PARAMETERS, "_label"))
        ]
        if len(inputs) != 1:
            names = f" ({', '.join(inputs[:4])})" if inputs else ""
            raise InputError(
                f"{network} takes {len(inputs)} inputs{names}; fmi supports only networks whose"
                " single input is a picture"
            )
        return str(inputs[0])

    def _in_inference_mode(self, graph: Dict[str, Any]) -> Dict[str, Any]:
        """Make BatchNorm use its moving averages, and disable what is random, in training mode too.

        Gradients are recorded in training mode, because MXNet's gradient of max pooling is
        incorrect on CPUs in inference mode.
        """
        for node in graph["nodes"]:
            attrs = node.get("attrs") or {}
            if node["op"] in NORMS:
                node["attrs"] = {**attrs, "use_global_stats": "True"}
            elif node["op"] == "Dropout":
                node["attrs"] = {**attrs, "p": "0"}
            elif attrs.get("act_type") == "rrelu":  # random in training mode, where MXNet crashes
                bounds = attrs.get("lower_bound", "0.125"), attrs.get("upper_bound", "0.334")
                node["attrs"] = {"act_type": "leaky", "slope": str(sum(map(float, bounds)) / 2)}
        return graph

    def _walk(self) -> List[Node]:
        """Determine stride, receptive field and sign of the output of each node."""
        found: List[Node] = []
        carries: List[bool] = []  # whether a node's output depends on the picture
        for node in self.nodes:
            before = [found[source[0]] for source in node["inputs"]]
            carried = [carries[source[0]] for source in node["inputs"]]
            own = node["op"] == "null" and node["name"] == self.data
            carries.append(own or any(carried))
            wide = [about for about, carry in zip(before, carried) if carry]
            about = _after(node, wide or before)
            if KINDS.get(node["op"]) in ("addition", "concatenation"):  # of parameters too
                about = replace(about, negative=any(one.negative for one in before))
            found.append(about)
        return found

    def digest(self, parameters: Arrays) -> str:
        """Return the sha256 of operators and parameters, independent of their names."""
        made = hashlib.sha256()
        for node in self.nodes:
            attrs = sorted((node.get("attrs") or {}).items())
            attrs = [pair for pair in attrs if not pair[0].startswith("__")]
            inputs = [source[:2] for source in node["inputs"]]  # without versions, which may differ
            made.update(json.dumps([node["op"], attrs, inputs]).encode())
            if node["name"] in parameters:
                array = parameters[node["name"]]
                made.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return made.hexdigest()


def _number_repeated(nodes: Sequence[Dict[str, Any]]) -> None:
    """Give operators of the same name, as those of a block that is used again, names of their own.

    The second ``relu0_fwd`` becomes ``relu0_2_fwd``.
    """
    taken = {node["name"] for node in nodes}
    uses: Dict[str, int] = {}
    for node in nodes:
        name = node["name"]
        uses[name] = uses.get(name, 0) + 1
        if uses[name] == 1 or node["op"] == "null":
            continue
        stem, end = (name[: -len("_fwd")], "_fwd") if name.endswith("_fwd") else (name, "")
        while f"{stem}_{uses[name]}{end}" in taken:
            uses[name] += 1
        node["name"] = f"{stem}_{uses[name]}{end}"
        taken.add(node["name"])


def _gated(nodes: Sequence[Mapping[str, Any]]) -> Dict[int, int]:
    """Return the places of sigmoids by which their own input is multiplied, and of the products.

    Such a product is the activation Swish, to which Gluon gives the name of its sigmoid.
    """
    found = {}
    for place, node in enumerate(nodes):
        if node["op"] not in ("elemwise_mul", "broadcast_mul", "_mul", "_Mul"):
            continue
        first, second = (source[0] for source in node["inputs"])
        for input_, gate in ((first, second), (second, first)):
            attrs = nodes[gate].get("attrs") or {}
            if nodes[gate]["op"] == "sigmoid" or attrs.get("act_type") == "sigmoid":
                source = nodes[gate]["inputs"][0][0]
                if source != input_ and nodes[source]["op"] == "_mul_scalar":
                    source = nodes[source]["inputs"][0][0]
                if source == input_:
                    found[gate] = place
    return found


def _differentiable(nodes: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the nodes with average poolings that MXNet differentiates correctly on CPUs.

    If sizes are rounded up, the last window of a pooling may end outside of the picture and of
    its padding. MXNet divides by the part of a window that lies inside; but for some sizes, its
    gradient divides by all of the window, unless padding does not count. Therefore, padding becomes
    an operator of its own. This is not possible for a stride larger than the kernel, since windows
    that lie outside altogether have no gradient then.
    """
    found = list(nodes)
    for place, node in enumerate(nodes):
        attrs = node.get("attrs") or {}
        kernel, stride, pad = (
            pair(attrs.get(key, "()"), default)
            for key, default in (("kernel", 1), ("stride", 1), ("pad", 0))
        )
        if (
            (node["op"], attrs.get("pool_type")) == ("Pooling", "avg")
            and attrs.get("pooling_convention") == "full"
            and attrs.get("count_include_pad", "None") in ("True", "1", "None")
            and attrs.get("layout", "NCHW") in ("NCHW", "None")
            and kernel[0] >= stride[0]
            and kernel[1] >= stride[1]
        ):
            inputs = node["inputs"]
            if any(pad):
                widths = (0, 0, 0, 0, pad[0], pad[0], pad[1], pad[1])
                own = {"mode": "constant", "constant_value": "0", "pad_width": str(widths)}
                name = f"fmi_padding_{place}"
                found.append({"op": "Pad", "name": name, "attrs": own, "inputs": inputs})
                inputs = [[len(found) - 1, 0, 0]]
            own = {**attrs, "pad": "(0, 0)", "count_include_pad": "False"}
            found[place] = {**node, "attrs": own, "inputs": inputs}
    return found


def _after(node: Mapping[str, Any], before: Sequence[Node]) -> Node:
    """Return the properties of an operator's output, given those of its inputs."""
    if not before:
        return Node()
    attrs = node.get("attrs") or {}
    op = node["op"]
    stride = np.max([n.stride for n in before], axis=0)
    field = np.max([n.receptive_field for n in before], axis=0)
    negative = any(n.negative for n in before)
    spatial = any(n.spatial for n in before)
    if op in ("Convolution", "Deconvolution", "Pooling"):
        if attrs.get("global_pool") in ("True", "true", "1"):
            return Node(stride, field, negative, spatial=False)
        kernel, step, dilation = (
            np.array(pair(attrs.get(key, "()"), 1)) for key in ("kernel", "stride", "dilate")
        )
        reach = (kernel - 1) * dilation
        if op == "Deconvolution":
            return Node(stride / step, field + stride * reach / step, True, spatial)
        sign = negative if op == "Pooling" else True
        return Node(stride * step, field + stride * reach, sign, spatial)
    if op == "UpSampling":
        stride = stride / max(1, int(attrs.get("scale", 1)))
    elif op == "Activation":
        negative = attrs.get("act_type") not in POSITIVE and negative
    elif op in ("relu", "sigmoid", "exp", "square", "abs", "_contrib_BatchNormWithReLU"):
        negative = False
    elif op == "clip":
        negative = float(attrs.get("a_min", "-inf")) < 0
    elif op not in ("Dropout", "Concat", "concat", "Flatten", "_copy", "identity") and (
        KINDS.get(op) != "addition"
    ):
        negative = True  # LeakyReLU, BatchNorm, a difference, or an unknown operator
    if op in ("Flatten", "FullyConnected", "Reshape", "SoftmaxOutput", "softmax"):
        spatial = False
    return Node(stride, field, negative, spatial)


# --- conversion of blocks, symbols and files ---


def from_block(block: Any, how: Input) -> SymbolNetwork:
    """Return the network of a HybridBlock, which is not modified.

    Raises
    ------
    InputError
        If the block takes several inputs, cannot be converted to a symbol, or has parameters that
        have not been initialised.
    """
    name = block.name or type(block).__name__
    try:
        symbol = mx.sym.Group(_flat(block(mx.sym.var("data"))))
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be applied to a single picture ({type(error).__name__}: {reason})"
        ) from error
    parameters = {p.name: p for p in block.collect_params().values()}
    shapes = _inferred(symbol, parameters, name)
    arrays = {}
    for key, parameter in parameters.items():
        if parameter._data is None and parameter._deferred_init and key in shapes:
            parameter.shape = shapes[key]
            parameter._finish_deferred_init()  # as in the first call of the block
        if parameter._data is not None:
            data: NDArray = parameter.data(parameter.list_ctx()[0])
            arrays[key] = data.astype("float32").asnumpy()
    if parameters and not arrays:
        raise InputError(
            f"the parameters of {name} have not been initialised: call its initialize() or"
            " load_parameters() first"
        )
    return SymbolNetwork(symbol, arrays, name, how)


def _flat(outputs: Any) -> List[Any]:
    """Return the symbols in the output of a block, which may be a list of lists of them."""
    if isinstance(outputs, (list, tuple)):
        return [symbol for each in outputs for symbol in _flat(each)]
    if not isinstance(outputs, mx.sym.Symbol):
        raise TypeError(f"an output is of type {type(outputs).__name__}")
    return [outputs]


def _inferred(symbol: Any, parameters: Mapping[str, Any], name: str) -> Dict[str, Shape]:
    """Infer the shapes of the parameters of all layers, including deferred ones.

    Dense layers are omitted, because their shapes depend on the size of the pictures.
    """
    graph = _Graph(symbol, set(parameters), name)
    group = mx.sym.Group([output for _, _, output in graph.outputs.values()])
    known = {n: p.shape for n, p in parameters.items() if p.shape and min(p.shape) > 0}
    known = {n: shape for n, shape in known.items() if n in group.list_inputs()}
    for side in (LOOK, LARGER_LOOK):
        try:
            found, _, states = group.infer_shape_partial(
                **{**known, graph.data: (1, 3, side, side)}
            )
        except mx.MXNetError:  # the last pooling is larger than its input for this picture
            continue
        pairs = [*zip(group.list_arguments(), found)]
        pairs += [*zip(group.list_auxiliary_states(), states)]
        return {n: s for n, s in pairs if n != graph.data and s and min(s) > 0}
    raise InputError(
        f"{name} cannot process a picture of {LOOK} x {LOOK} pixels, nor one of"
        f" {LARGER_LOOK} x {LARGER_LOOK}"
    )


def from_symbol(
    symbol: Any, parameters: Mapping[str, Any], how: Input, name: str = "the symbol"
) -> SymbolNetwork:
    """Return the network of a symbol and its parameters, named with or without arg: and aux:."""
    arrays = {}
    for key, values in parameters.items():
        array = values.asnumpy() if hasattr(values, "asnumpy") else np.asarray(values)
        arrays[re.sub("^(arg|aux):", "", key)] = np.asarray(array, dtype=np.float32)
    return SymbolNetwork(symbol, arrays, name, how)


def read_parameters(path: Path) -> Dict[str, np.ndarray]:
    """Read the floating-point arrays of a ``.params`` file.

    Raises
    ------
    InputError
        If the file cannot be read or is damaged.
    """
    try:
        return formats.read_all_params(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def exported_pair(path: Path) -> Optional[Tuple[Path, Path]]:
    """Find ``x-symbol.json`` and ``x-0000.params``, given either of them or the prefix ``x``.

    Returns
    -------
    tuple of Path, or None
        The symbol file and the parameter file, the latter of the last epoch unless `path` is a
        parameter file; ``None`` if there is no symbol file.
    """
    text = str(path)
    match = re.fullmatch(r"(.*)-\d{4,}\.params", text)
    if match:
        prefix, chosen = match[1], [Path(path)]
    else:
        prefix = re.sub(r"-symbol\.json$", "", text)
        folder = Path(prefix).parent
        stem = re.escape(Path(prefix).name)
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        chosen = [f for f in there if re.fullmatch(stem + r"-\d{4,}\.params", f.name)]
        chosen.sort(key=lambda file: int(file.stem[file.stem.rindex("-") + 1 :]))
    graph = Path(f"{prefix}-symbol.json")
    if not graph.is_file():
        return None
    if not chosen or not chosen[-1].is_file():
        raise InputError(f"{graph} exists, but its parameters {prefix}-0000.params do not")
    return graph, chosen[-1]


def from_export(graph: Path, parameters: Path, how: Input) -> SymbolNetwork:
    """Load an exported pair (``HybridBlock.export``, ``mx.model.save_checkpoint``).

    Raises
    ------
    InputError
        If a file is damaged, or contains operators that could run arbitrary code.
    """
    try:
        text = graph.read_bytes()
    except OSError as error:
        raise InputError(f"{graph} cannot be read: {error.strerror}") from None
    symbol = _symbol(graph, text)
    arrays = read_parameters(parameters)
    name = re.sub(r"-symbol\.json$", "", graph.name)
    return from_symbol(symbol, arrays, how, name)


def _symbol(path: Path, text: bytes) -> Any:
    """Return the symbol of a JSON file after checking that all operators are safe to run."""
    try:
        if len(text) > LARGEST_GRAPH:
            raise ValueError("the file is too large")
        graph = json.loads(text.decode("utf-8"))
        nodes = graph["nodes"]
        for place, node in enumerate(nodes):
            if str(node["op"]).startswith(REFUSED) or node.get("subgraphs"):
                raise InputError(
                    f"{path} contains the operator {node['op']}, which fmi refuses to run from"
                    " a file"
                )
            if not isinstance(node["name"], str) or not isinstance(node["op"], str):
                raise ValueError("a node has no name")
            if any(not 0 <= int(source[0]) < place for source in node["inputs"]):
                raise ValueError("a node comes before its input")
        if any(not 0 <= int(head[0]) < len(nodes) for head in graph["heads"]):
            raise ValueError("an output does not refer to a node")
        return mx.sym.load_json(json.dumps(graph))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not a valid symbol file: {error}") from None
    except mx.MXNetError as error:
        line = str(error).strip().splitlines()[-1][:200]
        raise InputError(f"{path} is not a valid symbol file: {line}") from None


def from_zoo(name: str, parameters: Optional[Path], how: Input) -> SymbolNetwork:
    """Return a network of Gluon's model zoo with parameters from a file.

    Parameters
    ----------
    name
        Name as for ``mxnet.gluon.model_zoo.vision.get_model``.
    parameters
        ``.params`` file written by ``save_parameters`` or ``export``. If ``None``, all parameters
        are 0.

    Raises
    ------
    InputError
        If the file is damaged or belongs to another network.
    """
    from mxnet.gluon.model_zoo import vision

    block = vision.get_model(name, pretrained=False, prefix="net_")
    symbol = block(mx.sym.var("data"))
    expected = {p.name: p for p in block.collect_params().values()}
    structural = {key: p.name for key, p in block._collect_params_with_prefix().items()}
    shapes = _inferred(symbol, expected, name)
    if parameters is None:
        arrays = {key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}
        return SymbolNetwork(symbol, arrays, name, how)
    data = read_parameters(parameters)
    arrays = _matched({re.sub("^(arg|aux):", "", k): a for k, a in data.items()}, structural)
    for key, shape in shapes.items():
        if key not in arrays:
            raise InputError(f"{parameters} does not fit {name}: {key[len('net_') :]} is missing")
        if arrays[key].shape != tuple(shape):
            raise InputError(
                f"{parameters} does not fit {name}: {key[len('net_') :]} has shape"
                f" {arrays[key].shape}, not {tuple(shape)}"
            )
    used = {key: np.asarray(arrays[key], dtype=np.float32) for key in shapes}
    return SymbolNetwork(symbol, used, name, how)


def _matched(arrays: Arrays, structural: Mapping[str, str]) -> Dict[str, np.ndarray]:
    """Rename the arrays of a file to the names of a block with the prefix ``net_``."""
    if any(key in structural for key in arrays):
        return {structural[key]: array for key, array in arrays.items() if key in structural}
    prefix = os.path.commonprefix(list(arrays))
    prefix = prefix[: prefix.find("_") + 1]
    return {f"net_{key[len(prefix) :]}": array for key, array in arrays.items()}
