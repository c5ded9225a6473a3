"""Independent jobs over the cores of this machine, or over a cluster: joblib, and its Dask backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from pixelpolicy.errors import LabError

BACKENDS = ("loky", "dask")


def in_parallel(
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    *,
    workers: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
) -> Iterator[Any]:
    """``function`` of each job in processes of their own; what it gives, as soon as it is there, in any order.

    ``backend`` "dask" sends the jobs to the cluster whose scheduler has the address ``scheduler``, or without one to
    ``workers`` processes on this machine. Processes have one thread, and see the same folders.

    Raises `LabError` for an unknown backend, and where Dask is not installed or its scheduler does not answer. An
    error in a job ends the others and is raised here.
    """
    from joblib import Parallel, delayed, parallel_config

    if backend not in BACKENDS:
        raise LabError(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    calls = [delayed(function)(job) for job in jobs]
    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_cluster(workers, scheduler))
            stack.enter_context(parallel_config(backend="dask"))
        else:
            stack.enter_context(parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1))
        yield from Parallel(batch_size=1, return_as="generator_unordered")(calls)


def _cluster(workers: int, scheduler: str | None):
    """A client of the cluster, to be closed with its block; a cluster on this machine ends with it."""
    try:
        from distributed import Client
    except ImportError as error:
        raise LabError("Dask is not installed: pip install 'pixelpolicy[cluster]'") from error
    try:
        if scheduler:
            return Client(scheduler, timeout="10s")
        return Client(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    except OSError as error:
        raise LabError(f"no Dask scheduler answers at {scheduler}: {error}. Start one with `dask scheduler`") from error
