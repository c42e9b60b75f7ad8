"""Clusters: the panels of a sweep, computed by the workers of dask.distributed.

A job is a batch of filters of one layer and picture. The scheduler gives each worker the network,
the pictures and the settings once, also to workers that come later. A worker that sees the folder
of the sweep writes into its store; the others send the files of their results back. The jobs of a
worker that is lost are given to others, which compute only what the store still lacks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import tempfile
import threading
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from fmi import checks, files, request
from fmi.call import in_one_line
from fmi.device import environment, variables
from fmi.errors import InputError, brief, shown
from fmi.networks import catalogue
from fmi.networks.weights import Weights
from fmi.pictures import Picture
from fmi.runs.experiment import Experiment
from fmi.runs.figures import Run
from fmi.runs.progress import RUNNING
from fmi.runs.store import Store, key

__all__ = ["Batch", "Cluster", "Site", "compute", "fill"]

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds until a scheduler must have answered
TURN = threading.Lock()  # MXNet computes one job at a time, with all threads of the process


@dataclass(frozen=True)
class Cluster:
    """Where the workers are; one of the two is given.

    Attributes
    ----------
    scheduler
        Address of a scheduler that runs already, such as ``"tcp://host:8786"``.
    workers
        Number of worker processes that are started on this machine, each with its share of the
        threads.
    """

    scheduler: Optional[str] = None
    workers: Optional[int] = None

    def __post_init__(self) -> None:
        if (self.scheduler is None) == (self.workers is None):
            raise InputError("give either the address of a scheduler or a number of workers")
        if self.workers is not None:
            checks.checked("workers", self.workers, checks.Processes)


@dataclass(frozen=True)
class Batch:
    """A job: filters of one layer and picture, which a worker inverts together.

    Attributes
    ----------
    layer, filters
        Name of the layer, and numbers of the filters.
    picture
        Name of the content picture.
    keys
        Keys of the panels in the store, in the order of the filters.
    cost
        About how long they take (:func:`fmi.runs.plan.cost`).
    """

    layer: str
    filters: Tuple[int, ...]
    picture: str
    keys: Tuple[str, ...]
    cost: float

    def __str__(self) -> str:
        return f"{self.layer}:{','.join(map(str, self.filters))} {self.picture}"


@dataclass(frozen=True)
class Site:
    """What a worker needs for all jobs of a sweep.

    Attributes
    ----------
    name
        Name under which workers find it, which no other sweep has.
    experiment
        The experiment with everything resolved that depends on the machine.
    weights
        The weights, or ``None`` if the worker loads the network that the experiment names.
    pictures
        The content pictures by name.
    folder, store
        Absolute paths of the folder of the sweep and of its store.
    token
        What the file :data:`fmi.runs.progress.RUNNING` in this folder says while the sweep runs.
    """

    name: str
    experiment: Experiment
    weights: Optional[Weights]
    pictures: Mapping[str, Picture]
    folder: Path
    store: Path
    token: str

    @functools.cached_property
    def run(self) -> Run:
        """The experiment with its network, which a worker loads once."""
        run = Run(self.experiment)
        if self.weights is not None:
            run.network = catalogue.load(self.weights)
        return run

    @property
    def shared(self) -> bool:
        """Whether this machine sees the store: it is in the folder, which holds the token."""
        with contextlib.suppress(OSError, ValueError):
            inside = self.folder in self.store.parents
            return inside and (self.folder / RUNNING).read_text(encoding="utf-8") == self.token
        return False


# --- on a worker ---


def compute(name: str, batch: Batch) -> Dict[str, Optional[Dict[str, bytes]]]:
    """Compute a job on a worker, which has the site with a name.

    Returns
    -------
    dict of str to dict
        For the key of each panel that is finished, the files of the result
        (:meth:`fmi.runs.store.Store.packed`), or ``None`` if they are in the store already.

    Raises
    ------
    InputError
        If the job cannot be computed.
    """
    from distributed import get_worker

    plugin: Any = get_worker().plugins[name]
    site: Site = plugin.site
    with TURN, contextlib.ExitStack() as stack:
        if site.shared:
            store = Store(site.store)
            _invert(site, batch, store)
            return {one: None for one in batch.keys if store.intact(one)}
        store = Store(stack.enter_context(tempfile.TemporaryDirectory(prefix="fmi-")))
        _invert(site, batch, store)
        packed = {one: store.packed(one) for one in batch.keys}
        return {one: contents for one, contents in packed.items() if contents is not None}


def _invert(site: Site, batch: Batch, store: Store) -> None:
    """Compute what a store lacks of a job."""
    seed = site.experiment.seed
    options = {**site.run.options, "store": store, "seed": seed, "progress": False}
    picture, filters = site.pictures[batch.picture], list(batch.filters)
    asked = request.feature_map(picture, batch.layer, filters, False, None, options)
    if [key(record) for record in asked.records] != list(batch.keys):
        raise InputError(
            "the worker would compute other pictures: install the same versions of fmi and of the"
            " packages it needs as here (fmi doctor lists them), and let it have the same weights"
        )
    in_one_line(asked.compute)()
    asked.call.release()  # a sweep has hundreds of jobs


# --- on the machine of the user ---


def fill(
    cluster: Cluster,
    run: Run,
    store: Store,
    batches: Sequence[Batch],
    pictures: Mapping[str, Picture],
    kept: Callable[[str], object],
) -> None:
    """Let the workers of a cluster compute jobs into a store, the longest first.

    Parameters
    ----------
    cluster
        Where the workers are.
    run
        The sweep; the folder of its results holds the file :data:`fmi.runs.progress.RUNNING`.
    store
        The store.
    batches
        The jobs.
    pictures
        The content pictures by name.
    kept
        Function that is called with the key of each panel as soon as the store has it.

    Raises
    ------
    InputError
        If the scheduler does not answer or is lost, or if a job fails; what is finished is in the
        store.
    SetupError
        If dask.distributed is not installed.
    KeyboardInterrupt
        After Ctrl-C; finished panels are in the store, and no more jobs are begun.
    """
    distributed = _distributed()
    folder = run.results.resolve()
    site = Site(
        name=f"fmi-{uuid.uuid4().hex}",
        experiment=run.resolved,
        weights=getattr(run.network, "weights", None),
        pictures=pictures,
        folder=folder,
        store=store.folder.resolve(),
        token=(folder / RUNNING).read_text(encoding="utf-8"),
    )
    try:
        with _connected(distributed, cluster, run) as client, _registered(
            distributed, client, site
        ):
            _collect(distributed, client, site, batches, store, kept)
    finally:
        files.sweep.cache_clear()
        store.sweep()  # after workers that were killed


def _distributed() -> Any:
    """Import dask.distributed, which writes many lines unless it is told not to."""
    try:
        import distributed  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise environment.lacking("cluster", "a cluster needs dask.distributed") from None
    if logging.getLogger().getEffectiveLevel() > logging.DEBUG:
        for name in ("distributed", "distributed.client", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


@contextlib.contextmanager
def _connected(distributed: Any, cluster: Cluster, run: Run) -> Iterator[Any]:
    """Yield a client of the scheduler, whose dashboard is logged."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # other versions of packages, large pictures
        address: Any = cluster.scheduler
        if cluster.workers is not None:
            address = stack.enter_context(_local(distributed, cluster.workers, run))
        try:
            client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
            stack.callback(client.close, timeout=PATIENCE)
            found = client.scheduler_info()
        except (OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            raise InputError(
                f"scheduler={shown(cluster.scheduler)} does not answer as a scheduler of"
                f" dask.distributed: {_line(error)}"
            ) from None
        if "dashboard" in found.get("services", {}) and (cluster.scheduler or _has_bokeh()):
            log.info("dashboard: %s", client.dashboard_link)
        if not found["workers"]:
            log.info("the scheduler has no workers yet: waiting for them")
        yield client


def _local(distributed: Any, number: int, run: Run) -> Any:
    """Return a cluster of worker processes on this machine."""
    if run.ctx.device_type == "gpu" and number > 1:
        raise InputError(
            f"workers={number} share the cores of the CPU, but {run.ctx} is used: set ctx=cpu, or"
            " start a scheduler with a worker for each GPU"
        )
    threads = max(1, int(variables.threads()) // number)
    workers = "a worker" if number == 1 else f"{number} workers"
    log.info("sweep: %s with %d thread%s each", workers, threads, "" if threads == 1 else "s")
    import dask  # type: ignore[import-untyped,import-not-found,unused-ignore]

    # Its profiler looks at each worker's stack every 10 ms, which takes time from a descent.
    quiet = dask.config.set({"distributed.worker.profile.enabled": False})
    with quiet, _reported("the workers cannot begin"):  # one was killed, for example
        return distributed.LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # a descent keeps to the memory that it may use
            env={"OMP_NUM_THREADS": str(threads)},  # set before MXNet is imported
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )


def _has_bokeh() -> bool:
    """Return whether a scheduler of this process would have a dashboard."""
    return importlib.util.find_spec("bokeh") is not None


@contextlib.contextmanager
def _registered(distributed: Any, client: Any, site: Site) -> Iterator[None]:
    """Let all workers know a site inside a ``with`` statement, also those that come later."""

    class Plugin(distributed.WorkerPlugin):  # type: ignore[misc]
        """Keeps the site on a worker."""

        def __init__(self) -> None:
            self.site = site

    register = getattr(client, "register_plugin", None) or client.register_worker_plugin
    with _reported("the workers cannot begin"):
        register(Plugin(), name=site.name)
    try:
        yield
    finally:
        if client.status == "running":
            with contextlib.suppress(Exception):  # the scheduler is lost at this moment
                client.unregister_worker_plugin(site.name)


def _collect(
    distributed: Any,
    client: Any,
    site: Site,
    batches: Sequence[Batch],
    store: Store,
    kept: Callable[[str], object],
) -> None:
    """Submit all jobs, and add what comes back to the store."""
    jobs: Dict[Any, Batch] = {}
    try:
        for batch in sorted(batches, key=lambda batch: batch.cost, reverse=True):
            name = f"{batch.layer}-{batch.picture}-{batch.keys[0]}-{site.name}"
            future = client.submit(compute, site.name, batch, key=name, pure=False)
            jobs[future] = batch
        for future in distributed.as_completed(list(jobs), loop=client.loop):
            if future.cancelled():
                raise InputError(
                    f"the scheduler {client.scheduler.address} is lost; finished panels are kept,"
                    " run the command again to resume"
                )
            batch = jobs.pop(future)
            with _reported(str(batch)):
                found = future.result()
            for one, contents in found.items():
                if contents is not None:
                    store.unpack(one, contents)
                kept(one)
    finally:
        if jobs and client.status == "running":
            with contextlib.suppress(Exception):  # the scheduler is lost at this moment
                client.cancel(list(jobs), force=True)


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Report any error that comes from the scheduler or a worker as an :class:`InputError`."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{what}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return an error in one line."""
    text = brief(" ".join(str(error).split())) if not isinstance(error, InputError) else str(error)
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
