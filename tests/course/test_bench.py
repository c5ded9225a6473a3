"""The comparison of methods: what is run, what is left alone, what is told; over processes and a local cluster."""

import json

import pytest
import torch

from pixelpolicy.book.algorithms_page import place_page, table
from pixelpolicy.course import bench as module
from pixelpolicy.course.algorithms import METHODS, Budget
from pixelpolicy.course.bench import RATES, bench, chosen_rate, collect, rates
from pixelpolicy.course.parallel import in_parallel
from pixelpolicy.errors import LabError

TINY = Budget(pictures=192, per_kind=2)


@pytest.fixture(autouse=True)
def threads():
    """A run takes one thread for itself; here it is in the tests' own process, which goes on."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tuned(root, method, best=RATES.index(1)):  # noqa: B008
    """A method whose trial at the rate of its lab, or another, was the most accurate."""
    for place, rate in enumerate(rates(method)):
        path = root / "benchmarks" / "algorithms" / method / f"tuning-{rate:g}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"accuracy": float(place == best), "cpu_seconds": 1.0}))


def square(number):
    return number**2


@pytest.mark.parametrize("backend", ["loky", pytest.param("dask", marks=pytest.mark.slow)])
def test_what_jobs_give_comes_as_soon_as_it_is_there(backend):
    assert sorted(in_parallel(square, range(5), workers=2, backend=backend)) == [0, 1, 4, 9, 16]


def test_a_backend_or_scheduler_that_is_not_there_is_told():
    with pytest.raises(LabError, match="choose one of loky, dask"):
        list(in_parallel(square, [1], backend="threads"))
    with pytest.raises(LabError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        list(in_parallel(square, [1], backend="dask", scheduler="tcp://127.0.0.1:9"))


def test_a_method_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LabError, match="no method ppo; choose from rwr"):
        bench(["ppo"], [0], budget=TINY, root=tmp_path)


def test_the_rate_of_the_most_accurate_trial_is_taken(tmp_path):
    tuned(tmp_path, "nft", best=RATES.index(2))
    assert chosen_rate(tmp_path, "nft") == max(rates("nft"))
    (tmp_path / "benchmarks" / "algorithms" / "nft" / f"tuning-{rates('nft')[0]:g}.json").unlink()
    with pytest.raises(LabError, match=r"nft is not tuned: tuning-0.000125.json missing"):
        chosen_rate(tmp_path, "nft")


@pytest.mark.slow
def test_what_is_there_is_left_alone_and_the_rest_is_run(tmp_path, monkeypatch):
    tuned(tmp_path, "nft")
    first = bench(["nft", "best-of-4"], [0], budget=TINY, root=tmp_path)
    assert [(made["method"], made["seed"]) for made in first] == [("nft", 0), ("best-of-4", 0)]
    trained = first[0]["metrics"]
    assert trained["learning_rate"] == METHODS["nft"].learning_rate and trained["kl_nats"]["after"] > 0
    assert first[1]["metrics"]["proxy"]["after"] > first[1]["metrics"]["proxy"]["before"]
    asked = []
    monkeypatch.setattr(module, "run", lambda root, method, seed, budget: asked.append((method, seed)))
    bench(["nft", "best-of-4"], [0, 1], budget=TINY, root=tmp_path)
    assert asked == [("nft", 1), ("best-of-4", 1)]
    assert json.loads((tmp_path / "benchmarks" / "algorithms.json").read_text()) == first

    place_page(tmp_path, tmp_path)
    page = (tmp_path / "algorithms.md").read_text()
    assert "**best of 4**" in page and "**DiffusionNFT**" in page and "**AWM**" not in page
    assert "This table is partial" in page and "| 1 of 3 |" in page and "DDPO" in page
    assert "{cite:p}`zheng2025nft`" in page and (tmp_path / "figures" / "algorithms.png").exists()


def test_a_record_that_is_no_record_is_told(tmp_path):
    path = tmp_path / "benchmarks" / "algorithms" / "nft" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"record": ')
    with pytest.raises(LabError, match="Delete it"):
        collect(tmp_path)


def test_the_table_orders_methods_by_accuracy_and_shows_intervals():
    def made(method, seed, value):
        keys = ("proxy", "accuracy", "accuracy_held_out", "diversity", "kl_nats")
        metrics = {key: {"before": 0.5, "after": value} for key in keys}
        return {"method": method, "seed": seed, "metrics": metrics, "samples": 5760, "cpu_seconds": 40.0}

    rows = table(
        [made("ddpo", seed, 0.6 + seed / 10) for seed in range(3)] + [made("nft", 0, 0.9)],
        {"13": "13-forward-process"},
    ).splitlines()
    assert rows[2].startswith("| *the base* | | 0.500 |")
    assert "[13](labs/13-forward-process.ipynb)" in rows[3] and "| 09 |" in rows[4]
    assert rows[3].startswith("| DiffusionNFT") and rows[3].endswith("| 5,760 | 40 | 1 of 3 |")
    assert "0.700 (0.600 to 0.800)" in rows[4] and rows[4].endswith("| 3 |")
