"""Running a solved lab from end to end without a browser, in a kernel of this interpreter."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from pixelpolicy.course.build import lab_notebook
from pixelpolicy.course.files import course_root, results_folder
from pixelpolicy.course.network import kernel_command
from pixelpolicy.course.results import validate_record
from pixelpolicy.course.source import find_source, read_source
from pixelpolicy.errors import LabError
from pixelpolicy.files import write_whole
from pixelpolicy.profiles import Profile, named
from pixelpolicy.profiles import profile as current_profile

# seconds that one cell may take
PATIENCE: dict[Profile, int | None] = {"smoke": 600, "cpu": 7200, "gpu": None}


def run_lab(
    number: int | str,
    profile: str | None = None,
    *,
    network: bool = True,
    timeout: int | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Run solved lab `number` (12, "12" or "12-grpo") and return its record, summarised on the screen.

    Leaves `results/NN.json` and the executed `results/NN.ipynb`, and touches neither where the run fails. A progress
    bar counts the cells; with `show` what the cells print is passed on. `timeout` is in seconds a cell. With
    `network=False` every connection outside this machine raises. The student's progress is left alone.

    Raises LabError where there is no such lab, a cell raises or takes too long, the kernel dies, or the lab leaves no
    valid record; ProfileError for an unknown profile.
    """
    profile = named(profile) if profile else current_profile()
    root = course_root()
    source = read_source(find_source(root, number), checks=False)
    stem = source.name[:2]
    results = results_folder().resolve()
    notebook = lab_notebook(source, answers=True)
    with _scratch(results) as scratch:
        environment = os.environ | {
            "PIXELPOLICY_PROFILE": profile,
            "PIXELPOLICY_ROOT": str(root),
            "PIXELPOLICY_RESULTS": str(scratch),
            "PIXELPOLICY_PROGRESS": str(scratch / ".progress.json"),
            "HF_HUB_OFFLINE": "1",
        }
        timeout = PATIENCE[profile] if timeout is None else timeout
        client = _Client(notebook, network=network, timeout=timeout, show=show, name=source.name)
        try:
            client.execute(cwd=str(root), env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
            failed = results / f"{stem}.failed.ipynb"
            write_whole(failed, nbformat.writes(notebook, version=4) + "\n")
            raise LabError(
                f"lab {source.name}, profile {profile}, stopped in {client.place}: {_reason(error, timeout)}. "
                f"Its output is in {failed}"
            ) from error
        finally:
            client.bar.close()
        record = _read_record(scratch / f"{stem}.json", source.name)
        write_whole(results / f"{stem}.ipynb", nbformat.writes(notebook, version=4) + "\n")
        for path in scratch.iterdir():
            if not path.name.startswith("."):
                os.replace(path, results / path.name)
        (results / f"{stem}.failed.ipynb").unlink(missing_ok=True)
    print(summary(record))
    return record


def summary(record: dict[str, Any]) -> str:
    """A record in a few lines: what ran, how long, and every metric."""
    lines = [
        f"{record['name']} · profile {record['profile']} · seed {record['seed']} · {record['seconds']:.0f} s "
        f"({record['cpu_seconds']:.0f} s of CPU, {record['threads']} threads, {record['peak_memory_mb']} MB)"
    ]
    for name, value in record["metrics"].items():
        shown = "  ".join(f"{part} {number}" for part, number in _flat(value))
        lines.append(f"  {name:<24} {shown}")
    return "\n".join(lines)


class _Client(NotebookClient):
    """Runs cells with a bar that counts them, and knows which one it is in."""

    def __init__(
        self, notebook: nbformat.NotebookNode, *, network: bool, timeout: int | None, show: bool, name: str
    ) -> None:
        command = kernel_command(network=network)

        class Specs(KernelSpecManager):  # whatever "python3" means on this machine, this interpreter is meant
            def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
                return KernelSpec(argv=command, display_name="Python 3", language="python")

        class Manager(AsyncKernelManager):
            def _kernel_spec_manager_default(self) -> KernelSpecManager:
                return Specs()

        super().__init__(
            notebook, timeout=timeout, kernel_name="python3", kernel_manager_class=Manager, coalesce_streams=True
        )
        self.code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.bar = tqdm(total=len(self.code_cells), desc=f"lab {name}", unit="cell", dynamic_ncols=True)
        self.place = "its kernel's start"
        self.show = show
        self.on_cell_execute = self._entered
        self.on_cell_executed = self._left

    def _entered(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        number = next(i for i, other in enumerate(self.code_cells, start=1) if other is cell)
        first = next((line for line in cell.source.splitlines() if line.strip()), "")
        self.place = f"code cell {number} of {len(self.code_cells)} ({first.strip()[:70]!r})"
        self.bar.set_postfix_str(first.strip()[:40])

    def _left(self, cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        self.bar.update()

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> Any:
        content = msg["content"]
        if self.show and msg["msg_type"] == "stream" and content["name"] == "stdout":
            self.bar.write(content["text"].rstrip("\n"))
        done = super().process_message(msg, cell, cell_index)
        # a training loop's own bar is a widget in a kernel: its count is shown beside the cells'
        widget = self.widget_state.get(content.get("comm_id", ""), {})
        if widget.get("_model_name") in ("FloatProgressModel", "IntProgressModel") and widget.get("max"):
            self.bar.set_postfix_str(f"{widget.get('value', 0):.0f} of {widget['max']:.0f} steps")
        return done


class _scratch:
    """A folder inside `results/` for what a run leaves, gone when the block ends."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def __enter__(self) -> Path:
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(dir=self.results, prefix=".run-"))
        except OSError as error:
            raise LabError(f"nothing can be written to {self.results}: {error.strerror or error}") from error
        return self.path

    def __exit__(self, *_: Any) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _reason(error: Exception, timeout: int | None) -> str:
    """What went wrong and what to do, in words."""
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {error.evalue.strip()}"
    if isinstance(error, CellTimeoutError):
        return f"it took more than {timeout} s. Give it longer with timeout=, or choose a smaller profile"
    return (
        f"its kernel died ({error}). Most often memory has run out: close other programs, or choose a smaller profile"
    )


def _read_record(path: Path, lab: str) -> dict[str, Any]:
    try:
        return validate_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise LabError(f'lab {lab} ran and left no record: end it with write_record("{lab}", ...)') from error


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested metrics as pairs of a dotted name and a short number."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(part, f"{name}.{key}".lstrip("."))
    else:
        yield name, f"{value:.4g}"
