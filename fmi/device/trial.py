"""Compare a small convolution on a GPU, forward and backward, with the result of the CPU.

This runs in a separate process (see :mod:`fmi.device.gpus`), because a kernel that the GPU cannot
run aborts the process.
"""

from __future__ import annotations

import json
import sys
from typing import List

import numpy as np

from fmi.device.mxnet import Context, mx

__all__ = ["TOLERANCE", "convolve", "difference", "main"]

TOLERANCE = 1e-2  # relative; rounding to TF32 causes about 1e-3


def convolve(ctx: Context) -> List[np.ndarray]:
    """Return the result of a convolution and its gradient with respect to the picture."""
    random = np.random.RandomState(0)
    image = mx.nd.array(random.normal(0, 1, (2, 3, 20, 24)), ctx=ctx)
    kernel = mx.nd.array(random.normal(0, 1, (8, 3, 3, 3)), ctx=ctx)
    image.attach_grad()
    with mx.autograd.record():
        code = mx.nd.Convolution(
            image, kernel, no_bias=True, kernel=(3, 3), pad=(1, 1), num_filter=8
        )
        loss = mx.nd.relu(code).square().sum()
    loss.backward()
    return [code.asnumpy(), image.grad.asnumpy()]


def difference(found: List[np.ndarray], wanted: List[np.ndarray]) -> float:
    """Return the largest relative difference, or infinity if a value is not finite."""
    each = [np.linalg.norm(f - w) / np.linalg.norm(w) for f, w in zip(found, wanted)]
    return float(np.nan_to_num(np.max(each), nan=np.inf))  # max() would ignore nan


def main(index: int) -> None:
    """Compute on GPU `index`, and print the result as JSON."""
    gpu = mx.gpu(index)
    free, total = mx.context.gpu_memory_info(index)
    off = difference(convolve(gpu), convolve(mx.cpu()))
    answer = {"free": free, "total": total, "difference": off, "right": off < TOLERANCE}
    sys.stdout.write(f"{json.dumps(answer)}\n")
