"""The ground: environment files, make, the command, the floors, the licences."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import pixelpolicy
from pixelpolicy import upkeep
from pixelpolicy.cli import app
from pixelpolicy.course.network import NetworkCut

COMMANDS = ("lab", "run", "build-labs", "status", "pretrain", "check", "update", "references", "book", "atlas")
# Of the text that apache.org publishes, as Debian ships it in /usr/share/common-licenses/Apache-2.0.
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


@pytest.fixture
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture
def copy(root, tmp_path):
    """The environment files in a folder of their own, to spoil."""
    (tmp_path / "src/pixelpolicy").mkdir(parents=True)
    for name in (
        "pyproject.toml", "constraints.txt", "environment.yml", "CITATION.cff", "CHANGELOG.md",
        "src/pixelpolicy/__init__.py",
    ):  # fmt: skip
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def spoil(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_environment_files_agree(root):
    assert upkeep.environment(root) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("environment.yml", "torch==2.13.0", "torch==2.12.0", "torch==2.12.0"),
        ("environment.yml", "      - peft==", "      # peft==", "no exact version of peft"),
        ("environment.yml", "      - -e .", "", "does not install the course itself"),
        ("environment.yml", "python=3.11", "python=3.10", "python=3.10"),
        ("constraints.txt", "\nnumpy==", "\nnumpy>=", "no exact version of numpy"),
        ("constraints.txt", "\ntorch==2.13.0", "\ntorch==3.0.0", "torch==3.0.0"),
        ("pyproject.toml", '"rich>=14"', '"rich>=99"', "rich>=99"),
        ("pyproject.toml", '"rich>=14"', '"rich>=14", "sdeint>=1"', "no exact version of sdeint"),
        ("CITATION.cff", "version: 0", "version: 9", "CITATION.cff has version 9"),
        ("src/pixelpolicy/__init__.py", '__version__ = "', '__version__ = "9', "__init__.py has version 9"),
        ("CHANGELOG.md", "## 0", "## 9", "CHANGELOG.md has version 9"),
    ],
)
def test_environment_check_sees_a_fault(copy, file, old, new, complaint):
    assert upkeep.environment(copy) == []
    spoil(copy / file, old, new)
    complaints = upkeep.environment(copy)
    assert complaints and any(complaint in line for line in complaints), complaints


def test_constraints_pin_all_that_is_installed(root, project):
    """Each dependency, and each of theirs, has an exact pin, and it is the version these tests run with."""
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    todo, seen, wrong = [Requirement(text) for text in wanted], set(), []
    pins = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)$", (root / "constraints.txt").read_text()))
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        version = metadata.version(name)
        if pins.get(name) != version.split("+")[0]:
            wrong.append(f"{name}: installed {version}, pinned {pins.get(name)}")
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            extras = requirement.extras or {""}
            # The CUDA build brings libraries of its own, each pinned by torch itself.
            cuda = re.match(r"nvidia-|triton|cuda-", inner.name)
            if not cuda and (not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in extras)):
                todo.append(inner)
    assert not wrong
    assert len(seen) > 100


def test_torch_has_no_torchvision(project):
    """The CPU build of torchvision does not import beside torch 2.13, so nothing may ask for it."""
    names = {Requirement(text).name for text in project["dependencies"]}
    assert "torch" in names and "torchvision" not in names


def test_versions(root, project):
    cff = re.search(r"(?m)^version: (\S+)$", (root / "CITATION.cff").read_text())[1]
    assert project["version"] == pixelpolicy.__version__ == cff == metadata.version("pixelpolicy")


def test_public_address_is_one_key(root):
    tool = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pixelpolicy"]
    assert isinstance(tool["repository"], str)


def test_licences(root):
    licence = (root / "LICENSE").read_bytes().replace(b"\r\n", b"\n")
    assert hashlib.sha256(licence).hexdigest() == APACHE_2_SHA256
    text = (root / "LICENSE-text.md").read_text()
    assert "Creative Commons Attribution 4.0 International" in text
    assert "https://creativecommons.org/licenses/by/4.0/" in text
    assert re.search(r"(?m)^  - name: Pixel Policy contributors$", (root / "CITATION.cff").read_text())


# make and CI


def targets(root) -> set[str]:
    return set(re.findall(r"(?m)^([a-z][a-z-]*):(?!=)", (root / "Makefile").read_text()))


def make(root, *words: str, **environment: str) -> subprocess.CompletedProcess:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "LAB", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *words], cwd=root, env=clean | environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_make_has_the_targets_that_pages_name(root, page):
    named = set(re.findall(r"(?:`|^|: )make ([a-z][a-z-]*)", (root / page).read_text(), flags=re.MULTILINE))
    assert named and named <= targets(root)


def test_make_has_the_targets_of_the_design(root):
    assert {"lab", "test", "test-fast", "run", "check"} <= targets(root)
    shown = make(root, "help").stdout
    assert all(f"make {target}" in shown for target in ("lab", "test", "test-fast", "run LAB=12", "check"))


def test_make_lab_from_nothing(root, tmp_path):
    """On a clean clone: torch first and under the constraints, then the rest under them, then the lab."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    plan = make(tmp_path, "-n", "lab", f"PYTHON={sys.executable}").stdout
    steps = [sys.executable + " -m venv", "-m pip install", "-m pip install", "-m pixelpolicy lab"]
    places = []
    for step in steps:
        places.append(plan.index(step, places[-1] + 1 if places else 0))
    installs = [line for line in plan.splitlines() if "pip install" in line]
    assert len(installs) == 2 and all("--constraint constraints.txt" in line for line in installs)
    assert installs[0].endswith(" torch") and "--editable '.[test,book]'" in installs[1]


def test_make_leaves_a_fresh_environment_alone(root, tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    ready = tmp_path / f".venv/ready-{sys.version_info[0]}.{sys.version_info[1]}"
    ready.touch()
    later = time.time() + 60
    os.utime(ready, (later, later))
    assert "pip install" not in make(tmp_path, "-n", "test", f"PYTHON={sys.executable}").stdout
    os.utime(tmp_path / "constraints.txt", (later + 60, later + 60))
    assert "pip install" in make(tmp_path, "-n", "test", f"PYTHON={sys.executable}").stdout


def test_make_says_what_python_is_needed(root, tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(tmp_path, "test", f"PYTHON={old}")
    assert done.returncode and "Python 3.11 or newer is needed" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_run_asks_which_lab(root, tmp_path):
    plan = make(root, "-n", "run", "LAB=7")
    assert "-m pixelpolicy run 7" in plan.stdout
    assert "make run LAB=12" in make(root, "-n", "run").stdout


def test_readme_without_make_does_what_make_does(root):
    readme, makefile = (root / "README.md").read_text(), (root / "Makefile").read_text()
    for python in (".venv/bin/python", r".venv\Scripts\python"):
        assert f"{python} -m pip install --constraint constraints.txt torch\n" in readme
        assert f'{python} -m pip install --constraint constraints.txt --editable ".[test,book]"\n' in readme
        assert f"{python} -m pixelpolicy lab\n" in readme and f"{python} -m pytest\n" in readme
    assert re.search(r"pip install .*--constraint constraints.txt .*torch\n", makefile)


def test_readme_is_plain_about_what_is_not_known(root):
    readme = (root / "README.md").read_text()
    assert "No GPU has timed" in readme
    assert "independent companion" in readme and "10.1007/s44336-025-00030-z" in readme


def test_ci_uses_the_commands_of_the_readme(root, tmp_path):
    """The script itself, with `make` replaced: order, exit code, and pytest's closing line at the end."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not installed")
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(root / ".ci/run", tmp_path / ".ci/run")
    fake = tmp_path / "bin/make"
    fake.write_text(
        '#!/bin/sh\necho "made $1"\n[ "$1" = "$FAILS" ] && exit 3\n'
        '[ "$1" = test ] && echo "== 5 passed, 1 skipped in 2.50s (0:00:02) =="\nexit 0\n'
    )
    fake.chmod(0o755)

    def ci(fails: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAILS": fails}
        command = [bash, ".ci/run"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    good = ci("nothing")
    lines = good.stdout.splitlines()
    assert good.returncode == 0
    assert lines.index("made test") < lines.index("made check")
    assert lines[-1] == "== 5 passed, 1 skipped in 2.50s (0:00:02) =="
    assert ci("test").returncode and ci("check").returncode


# The command


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pixelpolicy", *words],
        env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output


def test_help_names_every_command_and_is_quick():
    started = time.process_time(), os.times().children_user
    done = command("--help")
    seconds = os.times().children_user - started[1]
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
    assert seconds < 1, "a command imports something heavy before it runs"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, pixelpolicy.cli; print(sorted({'torch', 'diffusers', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_version():
    assert command("--version").stdout.strip() == f"pixelpolicy {pixelpolicy.__version__}"


@pytest.mark.parametrize("name", ["status", "lab", "run"])
def test_unknown_profile_is_one_clear_line(name):
    done = command(name, *(["12"] if name == "run" else []), PIXELPOLICY_PROFILE="laptop")
    assert done.returncode == 1
    line = done.stderr.strip()
    assert "\n" not in line and "Traceback" not in line
    assert "'laptop'" in line and all(profile in line for profile in ("smoke", "cpu", "gpu"))


def test_unknown_profile_option():
    done = command("run", "12", "--profile", "laptop")
    assert done.returncode == 1 and "'laptop'" in done.stderr and "Traceback" not in done.stderr


def test_debug_brings_the_traceback_back():
    done = command("status", PIXELPOLICY_PROFILE="laptop", PIXELPOLICY_DEBUG="1")
    assert done.returncode != 0 and "Traceback" in done.stderr and "ProfileError" in done.stderr


def test_unknown_generator():
    done = command("pretrain", "faces")
    assert done.returncode == 1 and "'faces'" in done.stderr and "shapes" in done.stderr


def test_status_counts_what_is_done(tmp_path):
    """Two exercises in a lab, one of them passed: 3 of 5 points."""
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    cells = [
        {"cell_type": "code", "source": "", "metadata": {"pixelpolicy": {"role": "exercise", **exercise}}}
        for exercise in ({"id": "12.1", "name": "first", "points": 3}, {"id": "12.2", "name": "second", "points": 2})
    ]
    (tmp_path / "labs/12-grpo.ipynb").write_text(json.dumps({"cells": cells}))
    entry = {"passed": True, "points": 3, "of": 3, "attempts": 4, "first": "", "last": "", "caught_up": False}
    (tmp_path / "progress.json").write_text(json.dumps({"version": 1, "exercises": {"12.1": entry}}))
    here = {"PIXELPOLICY_ROOT": str(tmp_path), "PIXELPOLICY_PROGRESS": str(tmp_path / "progress.json")}
    done = command("status", **here, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 exercises passed, 3 of 5 points" in done.stdout
    first = next(line for line in done.stdout.splitlines() if "first" in line)
    assert "12-grpo" in first and "passed" in first and "4" in first and "3 of 3" in first


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pretrain_ends_with_a_checkpoint_and_goes_on(tmp_path):
    """In the profile smoke; the second run finds every stage done and trains nothing anew."""
    from pixelpolicy.generators import checkpoint

    done = command("pretrain", "shapes", "--folder", str(tmp_path / "run"), "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        (stage, step) for stage in ("autoencoder", "flow", "held-back") for step in (1, 2)
    ]
    sheets = sorted(path.name for path in (tmp_path / "run/samples").iterdir())
    assert sheets == [f"{stage}-00000{step}.png" for stage in ("flow", "held-back") for step in (1, 2)]
    first = checkpoint.load(tmp_path / "run/checkpoint")
    assert "pixelpolicy pretrain shapes" in (tmp_path / "run/checkpoint/README.md").read_text()
    again = command("pretrain", "shapes", "--folder", str(tmp_path / "run"), "--threads", "1")
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == len(lines)
    second = checkpoint.load(tmp_path / "run/checkpoint")
    for name, value in first.transformer.state_dict().items():
        assert (value == second.transformer.state_dict()[name]).all(), name


# The checks of `pixelpolicy check`


def test_floors_check_runs_the_test_of_floors(tmp_path):
    assert upkeep.floors(tmp_path) == ["tests/ has no test_floors.py"]
    page = tmp_path / "tests/rl/test_floors.py"
    page.parent.mkdir(parents=True)
    page.write_text("def test_a():\n    raise AssertionError('rl imports viz')\n")
    assert any("rl imports viz" in line for line in upkeep.floors(tmp_path))


def test_links_lead_somewhere(root):
    assert upkeep.links(root) == []


def test_links_see_a_fault(tmp_path):
    (tmp_path / "there file.md").write_text("[no](work.md)\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/mine.md").write_text("[no](nowhere.md)\n")
    (tmp_path / "page.md").write_text(
        "[yes](there%20file.md#part) [yes](https://example.org/x) [yes](#here) ![yes](<there%20file.md>)\n"
        "`[no](code.md)`\n```\n[no](fenced.md)\n```\n[![a](gone.png)](there%20file.md) [b](lost.md)\n"
    )
    complaints = upkeep.links(tmp_path)
    assert [line.split(" ")[-1] for line in complaints] == ["gone.png", "lost.md", "work.md"]
    assert complaints[0].startswith("page.md:6:")


def test_lint_and_format_see_a_fault(tmp_path, root):
    shutil.copy(root / "pyproject.toml", tmp_path)
    page = tmp_path / "page.py"
    page.write_text("table = [\n    1, 2,\n    3, 4,\n]  # fmt: skip\n")
    assert upkeep.lint(tmp_path) == [] and upkeep.formatting(tmp_path) == []
    page.write_text("import os\nx = [1,2]\n")
    assert any("F401" in line for line in upkeep.lint(tmp_path))
    assert any("page.py" in line for line in upkeep.formatting(tmp_path))


def test_check_fails_where_a_check_complains(monkeypatch, root):
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(root))
    monkeypatch.setattr(upkeep, "CHECKS", {"good": lambda root: [], "bad": lambda root: ["a [b] complaint"]})
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 1 and "a [b] complaint" in done.output and "1 of 2 checks fail" in done.output
    monkeypatch.setattr(upkeep, "CHECKS", {"good": lambda root: []})
    assert CliRunner().invoke(app, ["check"]).exit_code == 0


# Opening the course, and the cut network


@pytest.fixture
def lab_root(tmp_path):
    """A course of one lab."""
    (tmp_path / "labs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    lab = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "labs/12-demo.ipynb").write_text(json.dumps(lab))
    return tmp_path


def test_unknown_lab_to_open(lab_root):
    done = command("lab", "99", "--no-browser", PIXELPOLICY_ROOT=str(lab_root))
    assert done.returncode == 1 and "no lab 99" in done.stderr and "12-demo" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_course_without_labs(lab_root):
    (lab_root / "labs/12-demo.ipynb").unlink()
    for name in ("lab", "status"):
        done = command(name, PIXELPOLICY_ROOT=str(lab_root))
        assert done.returncode == 1 and "pixelpolicy build-labs" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_lab_opens_at_the_address_it_prints(lab_root):
    """JupyterLab answers with the token, refuses without it, and ends with Ctrl-C."""
    environment = os.environ | {"PIXELPOLICY_ROOT": str(lab_root), "PYTHONUNBUFFERED": "1", "BROWSER": "false"}
    server = subprocess.Popen(
        [sys.executable, "-m", "pixelpolicy", "lab", "12", "--no-browser"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = next(line for line in server.stdout if "http://" in line)
        url = line.strip()
        address, token = url.split("?token=")
        assert address.endswith("/lab/tree/work/12-demo.ipynb") and len(token) >= 32
        open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        assert open_url(url, timeout=30).status == 200
        api = address.split("/lab/")[0] + "/api/contents/work/12-demo.ipynb"
        assert open_url(f"{api}?token={token}", timeout=30).status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            open_url(f"{api}?token=wrong", timeout=30)
        assert refused.value.code == 403
        server.send_signal(2)
        assert server.wait(timeout=30) == 0
        port = int(address.split(":")[2].split("/")[0])
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    finally:
        if server.poll() is None:
            server.terminate()
        server.wait(timeout=30)
        server.stdout.close()


def test_network_is_cut():
    """An address set aside for documentation (RFC 5737): were the network not cut, nothing would answer either."""
    with pytest.raises(NetworkCut):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_tests_run_small():
    assert os.environ["PIXELPOLICY_PROFILE"] == "smoke" and os.environ["HF_HUB_OFFLINE"] == "1"
    import torch

    assert torch.get_num_threads() <= 2


def test_the_readmes_results_are_those_of_the_records(root):
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "summary.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
