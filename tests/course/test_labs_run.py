"""Every solved lab runs from end to end under nbmake, in the smoke profile, cut off from the network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixelpolicy.course.build import lab_text
from pixelpolicy.course.network import kernel_command
from pixelpolicy.course.results import read_benchmark, validate_record
from pixelpolicy.course.source import read_source, sources

TESTS = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
LABS = [*sources(TESTS.parent), *sources(FIXTURES)]
BENCHMARKS = sorted((TESTS.parent / "benchmarks").glob("*.json"))
REACH_OUT = """
import socket
try:
    socket.create_connection(("203.0.113.1", 80), timeout=5)
except OSError as error:
    assert "network is cut" in str(error), error
else:
    raise AssertionError("a connection was made")
"""


def nbmake(folder, notebook, root, **environment):
    """Execute a notebook by nbmake in a kernel without a network."""
    folder.mkdir(exist_ok=True)
    spec = folder / "jupyter" / "kernels" / "cut"
    spec.mkdir(parents=True)
    kernel = {"argv": kernel_command(network=False), "display_name": "cut", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    (folder / "lab.ipynb").write_text(notebook)
    words = ["--nbmake", "--nbmake-kernel=cut", "--nbmake-timeout=600", "-q", "-p", "no:cacheprovider", "lab.ipynb"]
    variables = {
        "PIXELPOLICY_PROFILE": "smoke",
        "PIXELPOLICY_ROOT": str(root),
        "PIXELPOLICY_RESULTS": str(folder / "results"),
        "PIXELPOLICY_PROGRESS": str(folder / "progress.json"),
        "JUPYTER_PATH": str(folder / "jupyter"),
    }
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), *words]
    environment = os.environ | variables | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("path", LABS, ids=[path.stem for path in LABS])
def test_solved_lab_runs(path, tmp_path):
    source = read_source(path)
    done = nbmake(tmp_path / "run", lab_text(source, answers=True), path.parents[1])
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    record = validate_record(json.loads((tmp_path / "run" / "results" / f"{path.stem[:2]}.json").read_text()))
    assert record["name"] == path.stem and record["profile"] == "smoke"
    kept = json.loads((tmp_path / "run" / "progress.json").read_text())["exercises"] if source.tasks else {}
    assert set(kept) == set(source.tasks) and all(entry["passed"] for entry in kept.values())


def test_blank_lab_fails_and_the_network_is_cut(tmp_path, course):
    notebook = json.loads(lab_text(read_source(course / "solutions" / "99-means.py")))
    cell = {"cell_type": "code", "execution_count": None, "id": "reach-out", "metadata": {}, "outputs": []}
    notebook["cells"].insert(0, cell | {"source": REACH_OUT})
    done = nbmake(tmp_path / "run", json.dumps(notebook), course)
    assert done.returncode == 1
    assert "99.1 centred is not written yet" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


def test_cut_network():
    code = """
import socket
from pixelpolicy.course.network import NetworkCut, cut_network
cut_network()
for reach in (
    lambda: socket.create_connection(("203.0.113.1", 80), timeout=5),
    lambda: socket.socket().connect(("203.0.113.1", 80)),
    lambda: socket.socket().connect_ex(("203.0.113.1", 80)),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("203.0.113.1", 53)),
    lambda: socket.getaddrinfo("example.org", 80),
    lambda: __import__("urllib.request").request.urlopen("http://example.org"),
):
    try:
        reach()
    except OSError as error:
        assert isinstance(error, NetworkCut) or "network is cut" in str(error), error
    else:
        raise AssertionError("reached outside")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1])).close()
import os
assert os.environ["HF_HUB_OFFLINE"] == "1"
print("cut")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "cut", done.stderr


@pytest.mark.parametrize("path", sources(TESTS.parent), ids=lambda path: path.stem)
def test_the_time_a_lab_asks_for_is_that_of_its_exercises(path):
    """In the lab's opening and in the README's table: the same number, within five minutes of the exercises' sum."""
    opening = re.search(r"exercises[^.]*?about (\d+)\s+(?:# )?minutes", path.read_text(encoding="utf-8"))
    name = path.stem.replace("-", " ", 1)
    row = re.search(rf"^\| {name} \|.*?\| (\d+) min \|", (TESTS.parent / "README.md").read_text("utf-8"), re.MULTILINE)
    minutes = sum(task.minutes for task in read_source(path).tasks.values())
    assert opening and row and opening[1] == row[1] and abs(int(row[1]) - minutes) <= 5


@pytest.mark.parametrize("path", BENCHMARKS, ids=[path.stem for path in BENCHMARKS])
def test_benchmarks_hold_valid_records(path):
    assert read_benchmark(path)
