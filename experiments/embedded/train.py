"""Train the small VGG-19 on procedural textures.

``python -m experiments.embedded.train --config experiments/embedded/train.yaml --out DIR`` draws
the canvases into ``DIR/canvases.npy``, trains, and writes ``DIR/metrics.json`` and checkpoints
``DIR/step-000500`` ... Started again with the same ``DIR`` it resumes at the newest checkpoint.
``python -m experiments.embedded.export`` makes the network's file from the result.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import yaml
from tqdm import tqdm

from experiments.embedded.dataset import Phase, batch, clean_crops, draw_canvases
from experiments.embedded.network import TextureNet
from fmi import files
from fmi.device.mxnet import mx

log = logging.getLogger(__name__)

PARAMETERS, TRAINER, PROGRESS = "net.params", "trainer.states", "progress.json"


@dataclass(frozen=True)
class Config:
    """A training run, as read from YAML; see ``train.yaml`` for the meaning of every entry."""

    seed: int
    canvases: Mapping[str, int]
    network: Mapping[str, Any]
    loss: Mapping[str, Any]
    warm_up: int
    phases: Tuple[Phase, ...]
    report: Mapping[str, int]
    calibration: Mapping[str, Any]
    panels: Mapping[str, Any]
    card: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read a YAML file; an unknown or missing entry is an error."""
        entries = yaml.safe_load(path.read_text())
        return cls(phases=tuple(Phase(**phase) for phase in entries.pop("phases")), **entries)

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> Tuple[Phase, float]:
        """The phase that ``step`` belongs to, and the part of it that is done (0 to 1)."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / max(phase.steps - 1, 1)
            step -= phase.steps
        raise ValueError(f"step {step} lies behind the last phase")

    def rate_at(self, step: int) -> float:
        """Learning rate: a half cosine in each phase, a linear warm-up at the very start."""
        phase, done = self.phase_at(step)
        high, low = phase.rate
        rate = low + (high - low) * 0.5 * (1 + math.cos(math.pi * done))
        return rate * min(1.0, (step + 1) / self.warm_up)


class Run:
    """Network, trainer and progress: everything that a checkpoint keeps."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.step = 0
        self.history: List[Dict[str, Any]] = []
        np.random.seed(config.seed)  # MXNet's initialisers draw from both
        mx.random.seed(config.seed)
        self.net = TextureNet(config.canvases["classes"], prefix="texturenet_", **config.network)
        self.net.initialize(mx.init.MSRAPrelu("in", 0))
        self.net.hybridize(static_alloc=True, static_shape=True)
        self.begin(config.phases[0])

    def begin(self, phase: Phase) -> None:
        """Set what a phase sets once: thresholds and a fresh optimiser."""
        self.net.set_thresholds(phase.thresholds, phase.first_thresholds or phase.thresholds)
        settings = dict(phase.optimiser)
        name = settings.pop("name")
        self.trainer = mx.gluon.Trainer(self.net.collect_params(), name, settings, kvstore=None)

    def save(self, folder: Path) -> None:
        """Write a checkpoint beside the others, rename it into place, then drop the older ones."""
        final = folder / f"step-{self.step:06d}"
        part = folder / f"{final.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        self.net.save_parameters(str(part / PARAMETERS))
        self.trainer.save_states(str(part / TRAINER))
        progress = {"step": self.step, "history": self.history}
        (part / PROGRESS).write_text(json.dumps(progress))
        shutil.rmtree(final, ignore_errors=True)
        part.replace(final)
        for other in checkpoints(folder)[:-1]:
            shutil.rmtree(other)

    def load(self, checkpoint: Path) -> None:
        """Take everything from a checkpoint."""
        progress = json.loads((checkpoint / PROGRESS).read_text())
        self.step, self.history = progress["step"], progress["history"]
        phase, _ = self.config.phase_at(self.step - 1)
        self.begin(phase)
        self.trainer.load_states(str(checkpoint / TRAINER))
        self.net.load_parameters(str(checkpoint / PARAMETERS))

    def advance(self, canvases: np.ndarray) -> Any:
        """One step; returns the loss, an NDArray (1,) that may still be under way."""
        config = self.config
        phase, done = config.phase_at(self.step)
        if not done:
            self.begin(phase)
        data = batch(canvases, phase, config.seed, self.step)
        pictures, labels, shares = (mx.nd.array(array) for array in data)
        self.trainer.set_learning_rate(config.rate_at(self.step))
        with mx.autograd.record():
            *logits, silence = self.net(pictures)
            loss = config.loss["silence"] * silence
            for weight, output in zip(config.loss["heads"], logits):
                loss = loss + weight * soft_cross_entropy(output, labels, shares) / phase.batch
        loss.backward()
        self.trainer.step(1)
        self.step += 1
        return loss


def soft_cross_entropy(logits: Any, labels: Any, shares: Any) -> Any:
    """Sum of cross entropies of logits (B, classes) with two labels (2, B), weighted by shares."""
    log_p = mx.nd.log_softmax(logits)
    picked = mx.nd.stack(*(mx.nd.pick(log_p, label) for label in labels))
    return -(picked * shares).sum()


def checkpoints(folder: Path) -> List[Path]:
    """Checkpoints in a folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".part")


def accuracy(
    net: TextureNet, canvases: np.ndarray, crop: int, count: int, seed: int, size: int = 64
) -> Dict[str, float]:
    """Share of clean crops of these canvases that each head names rightly."""
    pictures, labels = clean_crops(canvases, crop, count, seed)
    right = np.zeros(len(net.heads))
    for start in range(0, count, size):
        *logits, _ = net(mx.nd.array(pictures[start : start + size]))
        named = np.stack([output.asnumpy().argmax(1) for output in logits])
        right += (named == labels[start : start + size]).sum(1)
    return dict(zip(("relu3_4", "relu4_4", "relu5_4"), np.round(right / count, 4).tolist()))


def all_canvases(config: Config, folder: Path) -> np.ndarray:
    """Canvases of every class (classes, count, SIZE, SIZE, 3), drawn if they are not there yet."""
    counts = config.canvases
    total = counts["train"] + counts["held_out"]
    return draw_canvases(folder / "canvases.npy", counts["classes"], total)


def held_out_canvases(config: Config, folder: Path) -> np.ndarray:
    """Those of them that the training never sees."""
    return all_canvases(config, folder)[:, config.canvases["train"] :]


def train(config: Config, folder: Path, until: Optional[int] = None) -> Run:
    """Train, or resume, up to step ``until`` (default: all); checkpoints stay in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    canvases = all_canvases(config, folder)
    known, held_out = canvases[:, : config.canvases["train"]], held_out_canvases(config, folder)
    run = Run(config)
    if checkpoints(folder):
        run.load(checkpoints(folder)[-1])
        log.info("resuming at step %d", run.step)
    end = config.steps if until is None else min(until, config.steps)
    report = config.report
    losses: List[Any] = []
    progress = tqdm(total=config.steps, initial=run.step, desc="training", unit="step")
    while run.step < end:
        losses.append(run.advance(known))
        progress.update()
        if len(losses) % 20 == 0:
            progress.set_postfix(loss=f"{losses[-1].asscalar():.2f}")
        if run.step % report["every"] == 0 or run.step == end:
            found = accuracy(run.net, held_out, report["crop"], report["pictures"], config.seed)
            mean = float(np.mean([loss.asscalar() for loss in losses]))
            run.history.append({"step": run.step, "loss": round(mean, 4), "accuracy": found})
            losses.clear()
            run.save(folder)
            files.save_json(folder / "metrics.json", run.history)
    progress.close()
    return run


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the embedded network.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="canvases, checkpoints, metrics")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    train(Config.read(options.config), options.out)


if __name__ == "__main__":
    main()
