"""Films: the pictures of a descent as previews, as a GIF or as a video."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from fmi import pictures
from fmi.descent import State
from fmi.device.environment import lacking
from fmi.errors import InputError
from fmi.inversion import Inversion

__all__ = ["MOST", "Film"]

MOST = 200  # frames; of longer descents, every second one is left out, and so on
RATE = 20  # frames a second


class Film:
    """A callback of descents that keeps their pictures.

    Parameters
    ----------
    stems
        Path of the results without suffix, in the order of the descents: one picture at a time.
    every
        Write a preview every so many steps.
    gif, mp4
        Whether to write a GIF and a video.

    Raises
    ------
    InputError
        If `every` is not at least 1.
    SetupError
        If a video is asked for and imageio-ffmpeg is not installed.
    """

    def __init__(self, stems: Sequence[Path], every: Optional[int], gif: bool, mp4: bool) -> None:
        if every is not None and every < 1:
            raise InputError(f"--save-every {every} must be at least 1")
        if mp4:
            _check_video()
        self._stems = list(stems)
        self._every = every
        self._suffixes = [suffix for suffix, wanted in ((".gif", gif), (".mp4", mp4)) if wanted]
        self._frames: Dict[int, List[np.ndarray]] = {}
        self._strides: Dict[int, int] = {}
        self._number = -1

    def __call__(self, state: State) -> None:
        """Keep the picture of a step."""
        if state.step == 1:
            self._number += 1  # another descent
        (array,) = state.arrays
        pixels = pictures.eight_bits(array)
        stem = self._stems[self._number]
        if self._every and state.step % self._every == 0:
            pictures.save_png(stem.with_name(f"{stem.name}_step{state.step:04d}.png"), pixels, {})
        if not self._suffixes:
            return
        frames = self._frames.setdefault(self._number, [])
        stride = self._strides.setdefault(self._number, 1)
        if state.step % stride == 0:
            frames.append(pixels)
        if len(frames) > MOST:
            del frames[::2]
            self._strides[self._number] = 2 * stride

    def save(self, results: Sequence[Inversion]) -> List[Path]:
        """Write what was asked for, and return the paths.

        Parameters
        ----------
        results
            The results of the descents, with which their films end.
        """
        from fmi import files

        found = []
        for (number, frames), result in zip(self._frames.items(), results):
            held = [*frames, *[np.asarray(result.undenoised)] * RATE]  # for a second
            for suffix in self._suffixes:
                path = self._stems[number].with_name(f"{self._stems[number].name}{suffix}")
                files.write_whole(path, functools.partial(_write, suffix=suffix, frames=held))
                found.append(path)
        return found


def _check_video() -> None:
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        raise lacking("video", "--mp4 needs imageio-ffmpeg") from None


def _write(path: Path, suffix: str, frames: Sequence[np.ndarray]) -> None:
    """Write frames (H, W, 3) uint8."""
    import imageio.v3 as imageio

    options: Dict[str, Any] = {"extension": suffix}
    if suffix == ".gif":
        options.update(duration=1000 / RATE, loop=0)
    else:
        rows, columns = (side % 2 for side in frames[0].shape[:2])  # videos have even sides
        frames = [np.pad(one, ((0, rows), (0, columns), (0, 0)), mode="edge") for one in frames]
        options.update(fps=RATE, macro_block_size=2, plugin="FFMPEG")
        options.update(output_params=["-f", "mp4"])  # the name of the file does not tell
    imageio.imwrite(path, np.stack(frames), **options)
