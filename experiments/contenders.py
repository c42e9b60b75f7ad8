"""The contenders of experiments/bench.py, each in a process of its own.

    python -m experiments.contenders JOB

JOB is a :class:`Job` as JSON. The process builds its network, warms up, and then makes as many
steps as each line of its standard input says; it answers with one line of JSON a turn. It ends
with its input. Each kind imports its own framework only: MXNet and PyTorch in one process would
share neither threads nor memory sensibly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Literal, Sequence, TextIO, Tuple

import numpy as np

from fmi import settings as presets
from fmi.errors import FmiError, InputError, SetupError

MEAN = (123.68, 116.779, 103.939)  # RGB; the 2016 code's
CODE = presets.CODE
ROUNDING: Literal["down"] = "down"  # of sizes in pooling, as in PyTorch and today's MXNet
SEED = 0
FOREVER = 1_000_000  # steps
TORCH = "pip install -e '.[bench]' --extra-index-url https://download.pytorch.org/whl/cpu"

Step = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """What a contender computes.

    Attributes
    ----------
    contender
        A key of :data:`CONTENDERS`.
    layers
        VGG-19's, in order, up to the one whose code is inverted.
    filters
        Of each convolution of a block.
    height, width
        Of the picture.
    batch
        Pictures at once.
    warm_up
        Steps before the first turn.
    side
        Of the square matrices, for the contenders that multiply some.
    """

    contender: str
    layers: Tuple[str, ...]
    filters: Tuple[int, ...]
    height: int
    width: int
    batch: int = 1
    warm_up: int = 2
    side: int = 4096

    @property
    def layer(self) -> str:
        """The layer whose code is inverted."""
        return self.layers[-1]

    @property
    def precision(self) -> str:
        """``"float32"`` or ``"bfloat16"``."""
        return "bfloat16" if "bfloat16" in self.contender else "float32"

    def to_json(self) -> str:
        """One line for the command line."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        """The job that :meth:`to_json` wrote."""
        values: Dict[str, Any] = json.loads(text)
        for name in ("layers", "filters"):
            values[name] = tuple(values[name])
        return Job(**values)


class Finished(Exception):
    """The parent wants no more steps."""


class Turns:
    """The child's end of the line to the parent; times steps and waits between turns.

    The first step of a turn is not counted: until then another contender had the caches, and its
    idle threads may still have been spinning.
    """

    def __init__(self, warm_up: int, orders: TextIO, answers: TextIO) -> None:
        self._orders, self._answers = orders, answers
        self._wanted = max(1, warm_up)
        self._seconds: List[float] = []
        self._cpu: List[float] = []
        self._base = 0.0
        self._began = (0.0, 0.0)

    def begin(self) -> None:
        """Call once what is measured begins: after imports and weights, before the network."""
        with contextlib.suppress(OSError):  # then the peak includes what came before
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        self._base = memory("VmRSS")
        self._began = time.perf_counter(), time.process_time()

    def tick(self) -> None:
        """Note the time of a step; at the end of a turn answer and wait for the next one.

        Raises
        ------
        Finished
            If there is no next one.
        """
        self._seconds.append(time.perf_counter() - self._began[0])
        self._cpu.append(time.process_time() - self._began[1])
        if len(self._seconds) == self._wanted:
            times = {"seconds": self._seconds[1:], "cpu_seconds": self._cpu[1:]}
            self.answer({**times, "peak_mb": memory("VmHWM"), "base_mb": self._base})
            order = self._orders.readline()
            if not order.strip():
                raise Finished
            self._wanted, self._seconds, self._cpu = int(order) + 1, [], []
        self._began = time.perf_counter(), time.process_time()

    def repeat(self, step: Step) -> None:
        """Make steps until the parent wants no more."""
        while True:
            step()
            self.tick()

    def answer(self, reply: Dict[str, Any]) -> None:
        """Send one line."""
        self._answers.write(json.dumps(reply) + "\n")
        self._answers.flush()


def memory(field: str) -> float:
    """The process's ``VmRSS`` (memory now) or ``VmHWM`` (its peak) in MB.

    Not getrusage's ru_maxrss, which begins with what the parent process took.
    """
    with Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
        kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024 / 1e6


def random_arrays(layers: Sequence[str], filters: Sequence[int]) -> Dict[str, np.ndarray]:
    """He-initialised weights of the convolutions among `layers`, float32, from a fixed seed."""
    random = np.random.default_rng(SEED)
    arrays, channels = {}, 3
    for name in layers:
        if not name.startswith("conv"):
            continue
        count = filters[int(name[4]) - 1]
        weight = random.standard_normal((count, channels, 3, 3), dtype=np.float32)
        arrays[f"{name}_weight"] = weight * np.float32(np.sqrt(2 / (9 * channels)))
        arrays[f"{name}_bias"] = np.zeros(count, np.float32)
        channels = count
    return arrays


def picture(height: int, width: int) -> np.ndarray:
    """A content picture, (H, W, 3) uint8: noise, as the time does not depend on what is in it."""
    random = np.random.default_rng(SEED)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def content(job: Job) -> np.ndarray:
    """The content picture as the network takes it, (1, 3, H, W) float32."""
    pixels: np.ndarray = picture(job.height, job.width) - np.asarray(MEAN, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def first(job: Job) -> np.ndarray:
    """The picture that the descent begins with, (1, 3, H, W) float32."""
    shape = (1, 3, job.height, job.width)
    return np.random.default_rng(SEED).uniform(-CODE.start, CODE.start, shape).astype(np.float32)


# --- fmi ---


def fmi_loop(job: Job, turns: Turns) -> None:
    """The library's own loop: feature map inversion by :func:`fmi.invert.feature_map`."""
    import fmi.invert
    from fmi.networks import weights
    from fmi.networks.topology import VGG19
    from fmi.sources import table

    network = weights.Weights(
        name="random",
        path=Path("random"),
        sha256="",
        mean=MEAN,
        arrays=random_arrays(job.layers, job.filters),
        format="npz",
        layout=table.layouts()["caffe"],
        topology=VGG19,
        source="random",  # no warning that the digest is unknown
    )
    turns.begin()
    fmi.invert.feature_map(
        picture(job.height, job.width),
        job.layer,
        list(range(job.batch)),
        batch=job.batch,
        pool_rounding=ROUNDING,
        weights=network,
        long_edge=max(job.height, job.width),
        steps=FOREVER,
        stop=0,
        precision=job.precision,
        ctx="cpu",
        progress=False,
        callback=lambda _: turns.tick(),
    )


def network_alone(job: Job, turns: Turns) -> None:
    """The network of fmi without the loop around it.

    A step is the pass from the picture to the code and the pass back to the gradient for the
    picture, with a gradient for the code that is there already. What a step of
    :func:`fmi_loop` takes longer than this is spent outside the network: on the loss and its
    gradient, the update, the lengths for the stop test, their way to the host, the progress bar.
    """
    from fmi.device.mxnet import mx
    from fmi.device.precision import choose
    from fmi.networks import vgg
    from fmi.networks.topology import VGG19

    arrays = random_arrays(job.layers, job.filters)
    turns.begin()
    cpu = mx.cpu()
    precision = choose(job.precision, cpu).name
    network = vgg.truncated(VGG19, arrays, (job.layer,), CODE.pool, ROUNDING, cpu, precision)
    image = mx.nd.array(first(job), ctx=cpu).broadcast_to((job.batch, 3, job.height, job.width))
    passes = network.passes(image.shape)
    if passes is None:
        raise InputError("this MXNet has no oneDNN")
    head = passes.gradients[job.layer]
    head[:] = mx.nd.random.normal(shape=head.shape, ctx=cpu)

    def step() -> None:
        passes.forward(image)
        passes.backward().wait_to_read()

    turns.repeat(step)


# --- the loop of 2016 ---


def loop_2016(job: Job, turns: Turns) -> None:
    """The 2016 script's way of doing it, written anew, on the same MXNet.

    A symbol bound to an executor that computes the gradients of every weight too; each step
    brings the code to the host, subtracts the target there, and carries the difference back as
    the head gradient; the change of the picture is computed on the host.
    """
    from fmi.device.mxnet import mx

    arrays = random_arrays(job.layers, job.filters)
    turns.begin()
    cpu = mx.cpu()
    net = _symbol_2016(mx, job.layers, job.filters)
    executor = net.simple_bind(cpu, grad_req="write", data=(1, 3, job.height, job.width))
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
    image = executor.arg_dict["data"]
    image[:] = content(job)
    executor.forward(is_train=True)
    target = executor.outputs[0].asnumpy()
    image[:] = first(job)
    rate = CODE.learning_rate
    scheduler = mx.lr_scheduler.FactorScheduler(CODE.decay_every, CODE.decay, base_lr=rate)
    optimizer = mx.optimizer.SGD(
        learning_rate=rate,
        momentum=CODE.momentum,
        wd=CODE.weight_decay,
        clip_gradient=CODE.clip,
        lr_scheduler=scheduler,
    )
    update = mx.optimizer.get_updater(optimizer)
    before = image.asnumpy()

    def step() -> None:
        nonlocal before
        executor.forward(is_train=True)
        gradient = executor.outputs[0].asnumpy() - target
        executor.backward([mx.nd.array(gradient, ctx=cpu)])
        update(0, executor.grad_dict["data"], image)
        after = image.asnumpy()
        change = float(np.linalg.norm(after - before) / np.linalg.norm(after))
        before = after
        if change < 0:  # the stop test; a benchmark does not stop
            raise Finished

    turns.repeat(step)


def _symbol_2016(mx: Any, layers: Sequence[str], filters: Sequence[int]) -> Any:
    node = mx.sym.Variable("data")
    for name in layers:
        if name.startswith("conv"):
            count = filters[int(name[4]) - 1]
            node = mx.sym.Convolution(
                data=node, num_filter=count, kernel=(3, 3), pad=(1, 1), name=name
            )
        elif name.startswith("relu"):
            node = mx.sym.Activation(data=node, act_type="relu", name=name)
        else:
            node = mx.sym.Pooling(
                data=node, kernel=(2, 2), stride=(2, 2), pool_type=CODE.pool, name=name
            )
    return node


# --- PyTorch ---


def _torch() -> Any:
    """PyTorch with as many threads as this process may use cores."""
    try:
        import torch
    except ImportError as error:
        raise SetupError(f"PyTorch is not here ({error}): {TORCH}") from None
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    return torch


def _check_bfloat16() -> None:
    from fmi.device.environment import cpu_flags

    if "avx512bw" not in cpu_flags():
        raise InputError("bfloat16 needs a CPU with AVX-512")


def torch_loop(job: Job, turns: Turns) -> None:
    """The same descent in PyTorch: gradient for the picture alone, one wait a step."""
    torch = _torch()
    layout = torch.channels_last if "channels_last" in job.contender else torch.contiguous_format
    dtype = torch.float32
    if job.precision == "bfloat16":
        _check_bfloat16()
        dtype = torch.bfloat16
    arrays = random_arrays(job.layers, job.filters)
    turns.begin()
    convolve, pool = torch.nn.functional.conv2d, torch.nn.functional.avg_pool2d
    parameters = {
        name: torch.from_numpy(array).to(
            dtype, memory_format=layout if array.ndim == 4 else torch.preserve_format, copy=True
        )
        for name, array in arrays.items()
    }

    def network(image: Any) -> Any:
        x = image.to(dtype)
        for name in job.layers:
            if name.startswith("conv"):
                weight, bias = parameters[f"{name}_weight"], parameters[f"{name}_bias"]
                x = convolve(x, weight, bias, padding=1)
            elif name.startswith("relu"):
                x = torch.relu_(x)
            else:
                x = pool(x, 2, 2)
        return x.float()

    with torch.no_grad():
        target = network(torch.from_numpy(content(job)).contiguous(memory_format=layout))
    image = torch.from_numpy(first(job)).contiguous(memory_format=layout)
    image = image.repeat(job.batch, 1, 1, 1).contiguous(memory_format=layout).requires_grad_()
    velocity = torch.zeros_like(image)
    made = 0

    def step() -> None:
        nonlocal made
        rate = CODE.learning_rate * CODE.decay ** (made // CODE.decay_every)
        made += 1
        loss = CODE.code_weight * (network(image) - target).square().sum(dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(loss.sum(), image)
        with torch.no_grad():
            gradient.clamp_(-CODE.clip, CODE.clip).add_(image, alpha=CODE.weight_decay)
            velocity.mul_(CODE.momentum).add_(gradient, alpha=-rate)
            image.add_(velocity)
            lengths = [x.square().sum(dim=(1, 2, 3)).sqrt() for x in (velocity, image)]
            values = torch.stack([loss.detach(), *lengths]).numpy()
        if (values[1] < 0).any():  # the stop test; a benchmark does not stop
            raise Finished

    turns.repeat(step)


# --- what the machine can do: matrix products ---


def numpy_product(job: Job, turns: Turns) -> None:
    """NumPy's matrix product."""
    left, right = _matrices(job)
    out = np.empty_like(left)
    turns.begin()
    turns.repeat(lambda: np.matmul(left, right, out=out))


def mxnet_product(job: Job, turns: Turns) -> None:
    """MXNet's: ``dot`` in float32; in bfloat16, which it has not, a dense layer without bias."""
    from fmi.device.mxnet import BFLOAT16, mx
    from fmi.device.precision import choose

    precision = choose(job.precision, mx.cpu()).name
    left, right = (mx.nd.array(matrix, ctx=mx.cpu()) for matrix in _matrices(job))
    turns.begin()
    if precision == "float32":
        turns.repeat(lambda: mx.nd.dot(left, right).wait_to_read())
    left, right = (mx.nd.amp_cast(matrix, dtype=BFLOAT16) for matrix in (left, right))
    dense = mx.nd.FullyConnected
    turns.repeat(lambda: dense(left, right, no_bias=True, num_hidden=job.side).wait_to_read())


def torch_product(job: Job, turns: Turns) -> None:
    """PyTorch's matrix product."""
    torch = _torch()
    dtype = torch.float32
    if job.precision == "bfloat16":
        _check_bfloat16()
        dtype = torch.bfloat16
    left, right = (torch.from_numpy(matrix).to(dtype) for matrix in _matrices(job))
    out = torch.empty_like(left)
    turns.begin()
    turns.repeat(lambda: torch.matmul(left, right, out=out))


def _matrices(job: Job) -> Tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(SEED)
    left, right = (random.standard_normal((job.side, job.side), dtype=np.float32) for _ in range(2))
    return left, right


CONTENDERS: Dict[str, Callable[[Job, Turns], None]] = {
    "fmi float32": fmi_loop,
    "fmi bfloat16": fmi_loop,
    "fmi float32, network alone": network_alone,
    "fmi bfloat16, network alone": network_alone,
    "2016 loop": loop_2016,
    "PyTorch float32, contiguous": torch_loop,
    "PyTorch float32, channels_last": torch_loop,
    "PyTorch bfloat16, contiguous": torch_loop,
    "PyTorch bfloat16, channels_last": torch_loop,
}
PRODUCTS: Dict[str, Callable[[Job, Turns], None]] = {
    "NumPy float32": numpy_product,
    "MXNet float32": mxnet_product,
    "PyTorch float32": torch_product,
    "MXNet bfloat16": mxnet_product,
    "PyTorch bfloat16": torch_product,
}


def main(arguments: Sequence[str]) -> int:
    """Compute until the parent closes the line; the exit status is 2 if that is not possible."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers
    job = Job.from_json(arguments[0])
    turns = Turns(job.warm_up, sys.stdin, answers)
    try:
        {**CONTENDERS, **PRODUCTS}[job.contender](job, turns)
    except (Finished, BrokenPipeError):
        return 0
    except FmiError as error:
        turns.answer({"left_out": str(error)})
    except Exception as error:  # whatever a framework raises: the others go on without it
        traceback.print_exc()
        text = str(error).strip() or "no message"
        turns.answer({"left_out": f"{type(error).__name__}: {text.splitlines()[0]}"})
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
