"""Sweeps: all filters of a network, or many of them, computed into the store of one folder.

The folder of a sweep holds ``sweep.yaml``, from which everything can be repeated, the store,
``sweep.log`` with a line for each panel, and at the end ``summary.json``. A sweep can be ended at
any moment; the same command goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

import yaml
from pydantic import BeforeValidator, model_validator
from typing_extensions import Annotated, Literal

from fmi import checks, files, request
from fmi.call import ALL, in_one_line
from fmi.device import variables
from fmi.errors import InputError, unknown
from fmi.networks.base import split_filters
from fmi.pictures import Picture
from fmi.runs import cluster as clusters
from fmi.runs import experiment as experiments
from fmi.runs.cluster import Batch, Cluster
from fmi.runs.experiment import Experiment
from fmi.runs.figures import Run
from fmi.runs.panels import Bar, Job, shared_out
from fmi.runs.progress import Panel, running, save_panels
from fmi.runs.store import Entry, Store
from fmi.runs.workers import Task, fill

__all__ = ["ALL", "Panel", "Sweep", "jobs", "panels", "read", "sweep"]

log = logging.getLogger(__name__)

FILE, LOG, SUMMARY = "sweep.yaml", "sweep.log", "summary.json"
LINE = re.compile(r"\S+ \S+ (.*): \d+ steps, stopped by .* (\S+)")  # of the log: panel and key
TOGETHER = 16  # panels that one call computes in a batch, unless `batch` is given

Numbers = Tuple[int, ...]
Filters = Union[str, Numbers, Dict[str, Union[str, Numbers]]]


def _filters(value: Any) -> Filters:
    """Check filters: "all", numbers, or a mapping from layers to one of these."""
    if isinstance(value, Mapping):
        if not value or not all(isinstance(name, str) for name in value):
            raise ValueError("must map names of layers to filters")
        return {name: _some(own) for name, own in value.items()}
    return _some(value)


def _some(value: Any) -> Union[str, Numbers]:
    if value == ALL:
        return ALL
    try:
        return cast(Numbers, checks.checked("filters", value, checks.Numbers))
    except InputError as error:
        reason = str(error).partition(" must ")[2] or "be numbers of filters"
        raise ValueError(
            f"must be 'all', a mapping, or numbers, each of which must {reason}"
        ) from None


class Sweep(Experiment):
    """The feature map inversions (Eq. 1-2) of many filters, each from every picture.

    Attributes
    ----------
    layers
        Names of layers, or ``"all"`` for all activations of the network. A name may have filters
        of its own, such as ``"relu3_2:17"``.
    filters
        ``"all"``, numbers, or a mapping from names of layers to one of these; a layer that is not
        in the mapping has all its filters inverted.
    store
        Folder of the store; by default ``store`` in the folder of the results.
    """

    figure: Literal["sweep"]
    layers: checks.Names = (ALL,)
    filters: Annotated[Any, BeforeValidator(_filters)] = ALL

    @model_validator(mode="before")
    @classmethod
    def _own_store(cls, values: Dict[str, Any]) -> Dict[str, Any]:
        if values.get("store") is None and isinstance(values.get("results", ""), str):
            folder = Path(values.get("results") or f"results/{values['figure']}")
            return {**values, "store": str(folder / "store")}
        return values

    @property
    def layer_names(self) -> List[str]:
        """The layers without filters."""
        return [] if self.layers == (ALL,) else [split_filters(text)[0] for text in self.layers]


def read(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read the YAML file of a sweep, with ``KEY=VALUE`` overrides.

    The folder of the results of ``DIR/sweep.yaml`` is DIR, wherever it has been moved to, unless
    it names another one.

    Raises
    ------
    InputError
        As for :func:`fmi.runs.experiment.read`.
    """
    found = experiments.read(path, overrides, {"sweep": Sweep})
    if path.name == FILE and "results" not in found.model_fields_set:
        found = experiments.read(path, [*overrides, f"RESULTS={path.parent}"], {"sweep": Sweep})
    return cast(Sweep, found)


# --- what is computed ---


def _chosen(run: Run) -> List[Tuple[str, Numbers]]:
    """Return the layers of a sweep, under their names in the network, and the filters of each."""
    e, network = cast(Sweep, run.experiment), run.network
    parts: List[Tuple[str, Numbers]]
    if e.layers == (ALL,):
        parts = [(one.name, ()) for one in network.layers if one.kind == "activation"]
    else:
        parts = [(network.layer(n).name, own) for n, own in map(split_filters, e.layers)]
    mapping = e.filters if isinstance(e.filters, dict) else {}
    by_name = {network.layer(name).name: own for name, own in mapping.items()}
    names = [name for name, _ in parts]
    for name in by_name:
        if name not in names:
            raise unknown("layer in filters", name, names)
    found = []
    for name, own in parts:
        wanted = own or by_name.get(name, ALL if mapping else e.filters)
        if wanted == ALL:
            wanted = range(network.layer(name).channels)
        network.check_filters(list(wanted), name)
        found.append((name, tuple(dict.fromkeys(wanted))))
    if len(set(names)) < len(names):
        raise InputError(f"layers={','.join(e.layers)} names a layer twice; name it once")
    return found


@dataclass(frozen=True)
class _Batch:
    """A job, its picture and its panels."""

    job: Job
    picture: Picture
    panels: Tuple[Panel, ...]


def _batches(run: Run) -> List[_Batch]:
    """Return all jobs, each of which computes some filters of one layer and picture."""
    e = cast(Sweep, run.experiment)
    layers, named = _chosen(run), run.named(e.pictures)
    options = {**run.options, "seed": e.seed, "progress": False}
    found = []
    for layer, filters in layers:
        for one in named:
            together = int(checks.checked("batch", e.overrides.get("batch", 0), int)) or TOGETHER
            for first in range(0, len(filters), together):
                some = filters[first : first + together]
                asked = request.feature_map(one.picture, layer, some, False, None, options)
                job = Job(asked, ())
                own = [Panel(layer, n, one.label, key) for n, key in zip(some, job.names)]
                found.append(_Batch(job, one.picture, tuple(own)))
    return found


def panels(run: Run) -> List[Panel]:
    """Return all panels of a sweep, by layer, picture and filter; nothing is computed.

    Raises
    ------
    InputError
        If the network lacks a layer or a filter, or if a picture or a value cannot be used.
    """
    return [panel for batch in _batches(run) for panel in batch.panels]


def jobs(run: Run) -> List[Job]:
    """Return the jobs of a sweep, each with the panels that one call computes in a batch.

    Raises
    ------
    InputError
        As for :func:`panels`.
    """
    return [batch.job for batch in _batches(run)]


# --- computing ---


class _Log:
    """The log of a sweep, with one line for each panel that the store holds.

    Parameters
    ----------
    path
        The file, which is continued.
    store
        The store.
    panels
        All panels of the sweep.
    """

    def __init__(self, path: Path, store: Store, panels: Sequence[Panel]) -> None:
        self._path, self._store = path, store
        self._panels: Dict[str, List[Panel]] = {}
        for panel in panels:  # two pictures with the same pixels have the same keys
            self._panels.setdefault(panel.key, []).append(panel)
        with _reported(path):
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if text != whole:  # a process was killed, or the disk was full, in the middle of a line
            files.write_whole(path, lambda beside: beside.write_text(whole, encoding="utf-8"))
        lines = map(LINE.fullmatch, whole.splitlines())
        self._known = {(line[1], line[2]) for line in lines if line}

    def add(self, key: str) -> None:
        """Add the lines of the panels with a key that the store holds, unless they are there."""
        new = [one for one in self._panels.get(key, ()) if (str(one), key) not in self._known]
        entry = self._store.entry(key) if new else None
        if entry is None:
            return
        for panel in new:
            outcome = _outcome(panel, entry)
            share = "-" if outcome.energy_share is None else f"{outcome.energy_share:.4f}"
            self._known.add((str(panel), key))
            self._write(
                f"{entry.when:%Y-%m-%d %H:%M:%S} {panel}: {outcome.steps} steps, stopped by"
                f" {outcome.stopped}, energy share {share}, {outcome.seconds:.1f} s, {key}\n"
            )

    def _write(self, text: str) -> None:
        with _reported(self._path):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                data = text.encode()
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Report errors of the operating system as an :class:`InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def sweep(experiment: Sweep, cluster: Optional[Cluster] = None) -> Path:
    """Compute all panels that the store of a sweep lacks, and return the path of the summary.

    Parameters
    ----------
    experiment
        The sweep.
    cluster
        The workers of dask.distributed that compute it; by default, it is computed by processes of
        this machine alone, as `experiment.processes` says.

    Raises
    ------
    InputError
        If a value cannot be used, if another process computes the same sweep, if a cluster fails,
        or if panels have diverged; all others are in the store then.
    SetupError
        If a cluster is given and dask.distributed is not installed.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store.
    """
    folder = experiment.results_folder
    experiment = _resumed(experiment, folder)
    run = Run(experiment)
    store = run.store
    batches = _batches(run)
    every = [panel for batch in batches for panel in batch.panels]
    for path in (folder, store.folder):
        files.prepare(path)  # rather than fail after hours
    store.tidy()
    with running(folder):
        _save(run, folder / FILE)
        costs = {batch.panels[0].layer: batch.job.cost for batch in batches}
        save_panels(folder, store.folder, every, costs)
        lines = _Log(folder / LOG, store, every)
        missing = [[p.key for p in b.panels if not store.intact(p.key)] for b in batches]
        lacking = {key for row in missing for key in row}
        rest = [panel for panel in every if panel.key in lacking]
        log.info("sweep: %d of %d panels to compute", len(rest), len(every))
        for panel in every:
            if panel.key not in lacking:
                lines.add(panel.key)  # unless a process was killed before it could
        with Bar("sweep", [(panel.key, costs[panel.layer]) for panel in rest]) as bar:
            store.listeners = (lines.add, lambda key: bar.count([key]))
            if cluster is None:
                _compute(run, store, [batch.job for batch in batches], missing)
            else:
                _send(run, store, batches, missing, cluster)
        store.tidy()  # after workers that were killed
        return _summary(folder, store, every)


def _resumed(experiment: Sweep, folder: Path) -> Sweep:
    """Keep the precision that "auto" has chosen before, as panels of others are not the same."""
    if experiment.precision == "auto" and (folder / FILE).exists():
        with contextlib.suppress(InputError):  # it is written anew
            before = read(folder / FILE).precision
            return experiment.model_copy(update={"precision": before})
    return experiment


def _compute(run: Run, store: Store, jobs: Sequence[Job], missing: Sequence[Sequence[str]]) -> None:
    """Compute the missing panels of each job, in this process or in several."""
    tasks = [
        Task(number, tuple(keys), len(keys), jobs[number].cost * len(keys))
        for number, keys in enumerate(missing)
        if keys
    ]
    finished = set()

    def finish(number: int) -> None:
        request = jobs[number].request
        in_one_line(request.compute)()
        request.call.release()
        if request.call.interrupted:
            raise KeyboardInterrupt
        finished.add(number)

    team = run.team()
    number, rest = (1, tasks) if team is None else shared_out(team, jobs, tasks, finish)
    if team is not None and number > 1:
        threads = max(1, int(variables.threads()) // number)
        plural = "" if threads == 1 else "s"
        log.info("sweep: %d processes with %d thread%s each", number, threads, plural)
        fill(team.experiment, store, rest, number, threads, store.tell)
        rest = [task for task in rest if not all(map(store.intact, task.keys))]
    for task in rest:
        if task.job not in finished:
            finish(task.job)


def _send(
    run: Run,
    store: Store,
    batches: Sequence[_Batch],
    missing: Sequence[Sequence[str]],
    cluster: Cluster,
) -> None:
    """Let the workers of a cluster compute the missing panels."""
    named: Dict[str, Picture] = {}
    sent = []
    for batch, keys in zip(batches, missing):
        own = [panel for panel in batch.panels if panel.key in keys]
        if own:
            first, filters = own[0], tuple(panel.filter for panel in own)
            named[first.picture] = batch.picture
            cost = batch.job.cost * len(own)
            sent.append(Batch(first.layer, filters, first.picture, tuple(keys), cost))
    if sent:
        clusters.fill(cluster, run, store, sent, named, store.tell)


# --- files ---


def _save(run: Run, path: Path) -> None:
    """Write the experiment so that it can be repeated and continued elsewhere."""
    e = cast(Sweep, run.experiment)
    found: Dict[str, Any] = {
        "figure": e.figure,
        "layers": list(e.layers),
        "filters": _plain(e.filters),
        "pictures": [_absolute(name) for name in e.pictures],
        "settings": run.preset,
        "precision": run.precision.name,
    }
    if e.folder is not None:
        found["pictures"] = [str(p.resolve()) for p in experiments.find(e, e.pictures, "pictures")]
    for name in ("network", "weights", "input", "ctx", "memory", "seed", "processes"):
        value = getattr(e, name)
        if value is not None:
            found[name] = _absolute(value) if name in ("network", "weights") else value
    if Path(e.store or "") != e.results_folder / "store":
        found["store"] = str(Path(str(e.store)).resolve())
    text = yaml.safe_dump({**found, **e.overrides}, sort_keys=False, default_flow_style=None)
    files.write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _plain(filters: Filters) -> Any:
    if isinstance(filters, dict):
        return {name: _plain(own) for name, own in filters.items()}
    return filters if isinstance(filters, str) else list(filters)


def _absolute(name: str) -> str:
    """Return the absolute path of a file, and other names as they are."""
    with contextlib.suppress(OSError, ValueError):
        return str(Path(name).resolve()) if Path(name).is_file() else name
    return name


@dataclass(frozen=True)
class _Outcome:
    """What the summary says of a panel."""

    layer: str
    filter: int
    picture: str
    key: str
    steps: int
    stopped: str
    energy_share: Optional[float]
    explained: Optional[float]
    seconds: float


def _outcome(panel: Panel, entry: Entry) -> _Outcome:
    outcome = entry.record["outcome"]
    named = {name: outcome[name] for name in ("steps", "stopped", "energy_share", "explained")}
    return _Outcome(**asdict(panel), **named, seconds=entry.seconds)


def _summary(folder: Path, store: Store, every: Sequence[Panel]) -> Path:
    """Write the summary, and return its path.

    Raises
    ------
    InputError
        If the store lacks panels, which have diverged.
    """
    entries = {panel: store.entry(panel.key) for panel in every}
    found = [_outcome(panel, entry) for panel, entry in entries.items() if entry is not None]
    lacking = [str(panel) for panel, entry in entries.items() if entry is None]
    names = list(dict.fromkeys(panel.layer for panel in every))
    content = {
        "panels": len(every),
        "finished": len(found),
        "diverged": lacking,
        "layers": {n: _of_layer([one for one in found if one.layer == n]) for n in names},
        "results": [asdict(one) for one in found],
    }
    files.save_json(folder / SUMMARY, content)
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(every)} panels diverged: {', '.join(lacking[:5])}"
            f"{' ...' if len(lacking) > 5 else ''}; reduce LEARNING_RATE or CLIP (the others are"
            f" in {store.folder})"
        )
    return folder / SUMMARY


def _of_layer(found: Sequence[_Outcome]) -> Dict[str, Any]:
    stopped = [one.stopped for one in found]
    shares = [one.energy_share for one in found if one.energy_share is not None]
    return {
        "panels": len(found),
        "stopped": {reason: stopped.count(reason) for reason in sorted(set(stopped))},
        "steps": _spread([one.steps for one in found]),
        "energy_share": _spread(shares),
        "seconds": _spread([one.seconds for one in found]),
    }


def _spread(values: Sequence[float]) -> Optional[Dict[str, float]]:
    if not values:
        return None
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}
