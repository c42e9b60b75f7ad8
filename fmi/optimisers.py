"""Optimisers: how a descent moves pictures, given the gradients of their losses."""

from __future__ import annotations

import math

import numpy as np

from fmi.device.mxnet import NDArray, mx
from fmi.losses import squared_length
from fmi.settings import Settings

__all__ = ["learning_rate", "momentum", "scaled", "update"]


def learning_rate(settings: Settings, step: int) -> float:
    """Return the learning rate of a step, starting at 1.

    With the schedule ``"steps"``, it is multiplied by `decay` every `decay_every` steps. With
    ``"cosine"``, it follows half a cosine wave that reaches 0 after the last step.
    """
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * (step - 1) / settings.steps)) / 2
    return settings.learning_rate * settings.decay ** ((step - 1) // settings.decay_every)


def momentum(settings: Settings, step: int) -> float:
    """Return the momentum of a step, starting at 1, which changes linearly over all steps."""
    share = (step - 1) / settings.steps
    return settings.momentum + share * (settings.last_momentum - settings.momentum)


def scaled(gradient: NDArray, size: float) -> NDArray:
    """Scale the gradient of each picture to the root mean square `size`.

    The result does not depend on the scale of the loss.

    Parameters
    ----------
    gradient
        Gradients (B, 3, H, W). A gradient that is 0 everywhere stays 0.
    size
        Root mean square of the result.
    """
    elements = gradient.size / gradient.shape[0]
    mean = (squared_length(gradient) / elements).sqrt().reshape((-1, 1, 1, 1))
    return mx.nd.broadcast_div(gradient, mean / size + np.finfo(np.float32).tiny)


def update(
    image: NDArray, gradient: NDArray, velocity: NDArray, settings: Settings, step: int
) -> NDArray:
    """Return the pictures after one step, and update the velocity in place.

    ``v <- momentum v - rate (g + weight_decay x)``, ``x <- x + v``, where g is the gradient, either
    clipped element by element (2016 code) or :func:`scaled`.

    Parameters
    ----------
    image, gradient, velocity
        Arrays (B, 3, H, W); `velocity` is modified.
    settings
        Learning rate, momentum, clip and so on.
    step
        Number of the step, starting at 1.
    """
    clips = settings.gradient == "clip"
    return mx.nd.sgd_mom_update(
        image,
        gradient if clips else scaled(gradient, settings.clip),
        velocity,
        lr=learning_rate(settings, step),
        momentum=momentum(settings, step),
        wd=settings.weight_decay,
        clip_gradient=settings.clip if clips else -1.0,
    )
