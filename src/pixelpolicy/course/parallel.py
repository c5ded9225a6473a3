"""Independent jobs over the cores of this machine, or over a cluster: joblib, and its Dask backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from pixelpolicy.errors import LabError

BACKENDS = ("loky", "dask")


def in_parallel(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    *,
    workers: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    title: str = "jobs",
) -> list[Any]:
    """``[function(*job) for job in jobs]``, in processes of their own, with a progress bar; in the order of the jobs.

    ``backend`` "dask" sends them to the cluster whose scheduler has the address ``scheduler``, or without one to
    ``workers`` processes on this machine. Processes have one thread, and see the same folders: what a job must leave
    behind it writes itself, so that nothing is lost when the rest is interrupted.

    Raises `LabError` for an unknown backend, and where Dask is not installed or its scheduler does not answer. An
    error in a job ends the others and is raised here.
    """
    from joblib import Parallel, delayed, parallel_config
    from tqdm.auto import tqdm

    if backend not in BACKENDS:
        raise LabError(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    listed = list(jobs)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(listed), desc=title))

        class Told(Parallel):
            def print_progress(self) -> None:
                bar.update(self.n_completed_tasks - bar.n)

        if backend == "dask":
            stack.enter_context(_cluster(workers, scheduler))
            stack.enter_context(parallel_config(backend="dask"))
        else:
            stack.enter_context(parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1))
        return Told(batch_size=1, pre_dispatch="2*n_jobs")(delayed(function)(*job) for job in listed)


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
