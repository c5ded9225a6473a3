"""What holds for every test: few threads, the smoke profile, no network, and nothing of the student's is touched."""

import os
import tempfile
from pathlib import Path

import pytest

from pixelpolicy.course.network import cut_network

# Before anything imports torch or numpy, which read these once; children inherit them.
THREADS = os.environ.get("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[_name] = "1"  # a process a core; it inherits what the one that shares out the tests has
    os.environ.setdefault(_name, THREADS)
os.environ["PIXELPOLICY_PROFILE"] = "smoke"
os.environ["MPLBACKEND"] = "agg"
_SCRATCH = tempfile.TemporaryDirectory(prefix="pixelpolicy-tests-")
os.environ["PIXELPOLICY_PROGRESS"] = str(Path(_SCRATCH.name) / "progress.json")
os.environ["PIXELPOLICY_RESULTS"] = str(Path(_SCRATCH.name) / "results")
cut_network()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests are shared out one by one, but those of the book share what one process builds, and come first."""
    from xdist.scheduler import LoadScopeScheduling

    class BookTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "book" if nodeid.startswith("tests/book/") else nodeid

    return BookTogether(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the course."""
    return Path(__file__).parents[1]
