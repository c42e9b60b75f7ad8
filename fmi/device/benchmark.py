"""A benchmark of about a second: VGG's convolutions in float32 and in bfloat16 on the CPU.

:mod:`fmi.device.precision` keeps its result until this file, or what it runs on, changes.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np
from pydantic import Field
from typing_extensions import Annotated

from fmi.device.mxnet import BFLOAT16, NDArray, mx

__all__ = ["Seconds", "Times", "measure"]

# Feature maps, height and width in the first three blocks of VGG for a picture of 128 x 96 pixels.
SHAPES = ((64, 96, 128), (128, 48, 64), (256, 24, 32))
FEWEST = 3  # turns of each number format
DURATION = 0.6  # seconds, unless the fewest turns take longer

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Times:
    """Medians of the times of both number formats for the same convolutions, in seconds."""

    float32: Seconds
    bfloat16: Seconds

    @property
    def ratio(self) -> float:
        """The time of bfloat16 as a share of that of float32."""
        return self.bfloat16 / self.float32


def measure() -> Times:
    """Run the convolutions of both passes over a network in turns, and return the medians.

    The number formats alternate, so that a machine that becomes slower does so for both.

    Raises
    ------
    mxnet.MXNetError
        If MXNet cannot run the convolutions.
    """
    formats = {"float32": np.float32, "bfloat16": BFLOAT16}
    stacks = {name: [_Stack(shape, dtype) for shape in SHAPES] for name, dtype in formats.items()}
    turns: Dict[str, List[float]] = {name: [] for name in formats}
    for chosen in stacks.values():
        _seconds(chosen)  # which creates the kernels
    end = time.perf_counter() + DURATION
    while len(turns["bfloat16"]) < FEWEST or time.perf_counter() < end:
        for name, chosen in stacks.items():
            turns[name].append(_seconds(chosen))
    return Times(**{name: statistics.median(times) for name, times in turns.items()})


def _seconds(stacks: List[_Stack]) -> float:
    """Compute each stack once, and return the time that it took."""
    began = time.perf_counter()
    for stack in stacks:
        stack.compute().wait_to_read()
    return time.perf_counter() - began


class _Stack:
    """Two convolutions with bias and relu, and two without, as the second pass has them."""

    def __init__(self, shape: Tuple[int, int, int], dtype: Any) -> None:
        filters, *_ = shape
        kernels = (filters, filters, 3, 3)
        spread = (2 / (9 * filters)) ** 0.5  # keeps the values at one size
        random = np.random.RandomState(0)  # not MXNet's, which is the user's too

        def made(array: np.ndarray) -> NDArray:
            made = mx.nd.array(array, dtype="float32")
            return made if dtype is np.float32 else mx.nd.amp_cast(made, dtype=dtype)

        self._data = made(random.normal(size=(1, *shape)))
        self._weights = [made(random.normal(0, spread, kernels)) for _ in range(4)]
        self._bias = made(np.zeros(filters))
        self._options = {"kernel": (3, 3), "pad": (1, 1), "num_filter": filters}

    def compute(self) -> NDArray:
        """Return the output of the last convolution."""
        node = self._data
        for weight in self._weights[:2]:
            node = mx.nd.Convolution(node, weight, self._bias, **self._options)
            node = mx.nd.Activation(node, act_type="relu")
        for weight in self._weights[2:]:
            node = mx.nd.Convolution(node, weight, no_bias=True, **self._options)
        return node
