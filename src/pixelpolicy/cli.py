"""The command `pixelpolicy`. It is thin: each command imports what it needs only when it runs."""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pixelpolicy import __version__, profiles
from pixelpolicy.errors import AtlasError, BookError, CheckpointError, LabError, PixelPolicyError

DEBUG = "PIXELPOLICY_DEBUG"
FIRST_LAB = "12"
FIRST_PORT = 8888
LAB_START_SECONDS = 120
# Checkpoints of rewards, and what remakes each: from published packages, or from the base of shapes.
# The recipe of each base: a module with `recipe_of`, `pretrain` and `publish`.
BASES = {
    "shapes": "pixelpolicy.generators.pretrain",
    "shapes-tokens": "pixelpolicy.generators.pretrain_picture_tokens",
    "bounce": "pixelpolicy.generators.pretrain_bounce",
    "furniture": "pixelpolicy.generators.pretrain_tokens",
    "walker": "pixelpolicy.generators.pretrain_tokens",
}
REWARDS = {
    "proxy": "pixelpolicy.rewards.proxy",
    "image-text": "pixelpolicy.rewards.image_text_fit",
    "second-reader": "pixelpolicy.rewards.second_reader",
}
STATES = {"new": "dim", "begun": "yellow", "passed": "green", "caught up": "cyan"}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Friendly(typer.core.TyperGroup):
    """Shows the course's own errors as one clear line; PIXELPOLICY_DEBUG=1 brings the traceback back."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PixelPolicyError as error:
            if os.environ.get(DEBUG, "0") not in ("", "0"):
                raise
            err.print(f"pixelpolicy: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Friendly,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pixel Policy: reinforcement learning for visual generative models.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"pixelpolicy {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    # An unknown profile is told before any work; where none is set, nothing need be imported to find out.
    if os.environ.get(profiles.VARIABLE):
        profiles.profile()


@app.command()
def lab(
    number: Annotated[str, typer.Argument(help="Which lab to open, such as 12.")] = FIRST_LAB,
    browser: Annotated[bool | None, typer.Option(help="Open a browser (default: where there is one).")] = None,
    port: Annotated[int, typer.Option(help="The first port to try.")] = FIRST_PORT,
) -> None:
    """Open the course in JupyterLab; your own copies of the labs lie in work/."""
    from pixelpolicy.course.files import course_root
    from pixelpolicy.course.opening import open_copy
    from pixelpolicy.course.updating import behind

    root, copy = course_root(), open_copy(number)
    for name in behind():
        out.print(f"There is a newer version of lab {name}. To bring it into your copy, all your answers kept:")
        out.print(f"    pixelpolicy update {name[:2]}    (or: make update LAB={name[:2]})")
    port, token = _free_port(port), secrets.token_urlsafe(24)
    url = f"http://127.0.0.1:{port}/lab/tree/{copy.relative_to(root).as_posix()}?token={token}"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", "--log-level=ERROR"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers run as root, and Jupyter would refuse
    out.print("Starting JupyterLab: some seconds.")
    # In a group of its own the server does not see Ctrl-C, which would make it ask a question nobody reads.
    apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"process_group": 0}
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | {"JUPYTER_TOKEN": token}, **apart)
    # A shell that starts a program in the background has it ignore Ctrl-C's signal.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
    try:
        _wait_for(server, port)
        out.print(f"\nJupyterLab is open at\n\n    {url}\n", soft_wrap=True)
        if _has_browser() if browser is None else browser:
            webbrowser.open(url)
        else:
            out.print("Open it in a browser here (from another machine, forward the port by ssh).", soft_wrap=True)
        out.print("Ctrl-C here ends it; what you wrote in work/ is kept.")
        ended = server.wait()
    except KeyboardInterrupt:
        out.print("\nJupyterLab is stopping.")
        return
    finally:
        server.terminate()
        server.wait()
    raise typer.Exit(abs(ended))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            # Windows lets two programs share a port that is set so; elsewhere it only skips the wait after a close.
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabError(f"no port from {first} to {first + 99} is free; name another: pixelpolicy lab --port 9999")


def _wait_for(server: subprocess.Popen, port: int) -> None:
    """Return once the server answers. Raises LabError where it ends first or takes too long."""
    deadline = time.monotonic() + LAB_START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise LabError(
                f"JupyterLab ended with code {server.returncode} before it answered; its own words are above"
            )
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise LabError(f"JupyterLab did not answer within {LAB_START_SECONDS} s; start it by hand: jupyter lab")


def _has_browser() -> bool:
    """Whether a window can be opened: a text browser inside this terminal would not do."""
    windows = sys.platform in ("win32", "darwin") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
    try:
        return windows and webbrowser.get() is not None
    except webbrowser.Error:
        return False


@app.command()
def update(
    lab: Annotated[str | None, typer.Argument(help="Which lab, such as 12 [default: all you have opened].")] = None,
) -> None:
    """Bring new versions of the labs into your copies in work/. Your answers stay, and so does the old copy."""
    from pixelpolicy.course import updating

    labs = [lab] if lab else updating.labs_with_copies()
    if not labs:
        out.print("You have opened no lab yet: there is nothing to update.")
    failed, written = [], False
    for name in labs:
        try:
            done = updating.update(name)
        except LabError as error:
            failed.append(str(error))
            continue
        written = written or done.old is not None
        for line in done.lines():
            out.print(line, markup=False, soft_wrap=True)
    for name in [] if lab else updating.copies_without_labs():
        out.print(f"{name}: the course no longer has this lab; your copy stays as it is.", soft_wrap=True)
    if written:
        out.print("Where one of these is open in JupyterLab: File, Reload Notebook from Disk.", soft_wrap=True)
    if failed:
        raise LabError("\n".join(failed))


@app.command()
def run(
    lab: Annotated[str, typer.Argument(help="Which lab, such as 12.")],
    profile: Annotated[str | None, typer.Option(help="smoke, cpu or gpu (default: what this machine has).")] = None,
    book: Annotated[bool, typer.Option("--book", help="Keep the executed lab for the book.")] = False,
    trial: Annotated[bool, typer.Option("--trial", help="With --book: keep it even of the profile smoke.")] = False,
) -> None:
    """Run a solved lab without a browser, and sum up its results."""
    chosen = profiles.named(profile) if profile else profiles.profile()
    if book and chosen == "smoke" and not trial:
        raise BookError(
            "the profile smoke measures nothing, so its outputs are not kept for the book; "
            f"say pixelpolicy run {lab} --profile cpu --book, or add --trial to look at a page (never commit that)"
        )
    from pixelpolicy.course.run import run_lab

    run_lab(lab, chosen)
    if book:
        from pixelpolicy.book.executed import keep_run
        from pixelpolicy.course.files import course_root

        out.print(f"Kept for the book: {keep_run(course_root(), lab, chosen)}", soft_wrap=True)


@app.command("build-labs")
def build_labs(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a lab differs.")] = False,
) -> None:
    """Cut the labs from their solutions."""
    from pixelpolicy.course import build

    written = build.build_labs(check=check)
    for path in written:
        out.print(f"written: {path.parent.name}/{path.name}")
    if not written:
        out.print("The labs are what their solutions give.")


@app.command()
def references(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where it differs or a key is missing.")
    ] = False,
) -> None:
    """Make book/references.bib from the atlas, and look whether every citation is in it."""
    from pixelpolicy import atlas
    from pixelpolicy.course.files import course_root

    root = course_root()
    if not check:
        out.print(f"written: {atlas.write(root).relative_to(root).as_posix()}")
    if complaints := atlas.check(root):
        raise AtlasError("\n".join(complaints))
    out.print("The references are what the atlas gives, and every citation is in them.")


@app.command()
def atlas(
    words: Annotated[list[str] | None, typer.Argument(help="Words that must all occur.")] = None,
    domain: Annotated[str | None, typer.Option(help="image, video, 3d, 4d, foundation or cross.")] = None,
    family: Annotated[str | None, typer.Option(help="Such as grpo, dpo, reward-gradient.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write what is found to this file, as CSV.")] = None,
    bibtex: Annotated[Path | None, typer.Option(help="Write what is found to this file, as BibTeX.")] = None,
) -> None:
    """Search the literature; export what is found."""
    from pixelpolicy import atlas as papers
    from pixelpolicy.files import write_whole

    found = papers.search(papers.load(), words or [], domain, family)
    for entry in found if not (csv or bibtex) else []:
        out.print(f"{entry.name} ({entry.year}), {entry.domain}, {entry.family}", style="bold", markup=False)
        where = f"run it: {entry.runs}" if entry.runs else ""
        for line in filter(None, (entry.title, entry.one_line, f"{entry.key}  {entry.address}", where)):
            out.print(f"    {line}", markup=False, soft_wrap=True)
    for path, text in ((csv, papers.csv_text), (bibtex, papers.bibtex)):
        if path:
            write_whole(path, text(found), AtlasError)
            out.print(f"written: {path}", soft_wrap=True)
    out.print(f"{len(found)} works.")


@app.command()
def bench(
    methods: Annotated[list[str] | None, typer.Argument(help="Such as ddpo nft; all where none is named.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds: 0, 1, 2 ...")] = 3,
    workers: Annotated[int, typer.Option(help="How many runs at once, each with one thread.")] = 1,
    backend: Annotated[str, typer.Option(help="loky: this machine; dask: a cluster.")] = "loky",
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, as tcp://HOST:8786.")] = None,
) -> None:
    """Compare the algorithms on one task: run what is missing, collect the records (hours; goes on if broken off)."""
    from pixelpolicy.course.algorithms import METHODS
    from pixelpolicy.course.bench import bench as compare

    found = compare(methods or tuple(METHODS), range(seeds), workers=workers, backend=backend, scheduler=scheduler)
    table = Table("method", "seed", "proxy", "accuracy", "diversity", "CPU seconds")
    for made in found:
        after = [f"{made['metrics'][key]['after']:.3f}" for key in ("proxy", "accuracy", "diversity")]
        table.add_row(METHODS[made["method"]].label, str(made["seed"]), *after, f"{made['cpu_seconds']:.0f}")
    out.print(table)
    out.print("benchmarks/algorithms.json holds these; `make book` shows them.")


@app.command()
def status() -> None:
    """Show your progress: exercises done and points, lab by lab."""
    from pixelpolicy.course import progress

    rows = progress.status()
    if not rows:
        raise LabError("there is no exercise yet: labs/ is empty; cut the labs with `pixelpolicy build-labs`")
    table = Table("lab", "exercise", "state", "attempts", "points")
    for i, row in enumerate(rows):
        last = i + 1 == len(rows) or rows[i + 1].lab != row.lab
        points = f"{row.points:g} of {row.of:g}"
        lab = row.lab if i == 0 or rows[i - 1].lab != row.lab else ""
        table.add_row(
            lab, row.name, f"[{STATES[row.state]}]{row.state}[/]", str(row.attempts), points, end_section=last
        )
    done, earned = sum(row.state == "passed" for row in rows), sum(row.points for row in rows)
    out.print(table)
    out.print(f"{done} of {len(rows)} exercises passed, {earned:g} of {sum(row.of for row in rows):g} points.")


@app.command()
def release(
    labs: Annotated[str, typer.Option(help="Which labs, such as 04,12.")],
    out: Annotated[Path, typer.Option(help="The folder that is made; empty, or not there yet.")],
    nbgrader: Annotated[
        bool, typer.Option("--nbgrader", help="A course directory of nbgrader, answers in it.")
    ] = False,
) -> None:
    """Make an assignment for a class: notebooks, their data, instructions, what is checked, a manifest."""
    from pixelpolicy.course.release import release as make

    made = make(_labs(labs), out, nbgrader=nbgrader)
    console = Console(highlight=False, soft_wrap=True)  # `out` is a folder here
    console.print(f"{', '.join(made.labs)}: {made.files} files, {made.bytes / 1e6:.1f} MB, in {made.folder}")
    console.print(f"Read first: {made.folder / 'README.md'}", markup=False)


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="The folder with the class's notebooks.")],
    out: Annotated[Path, typer.Option(help="Where grades, feedback and the report go.")],
    labs: Annotated[str, typer.Option(help="Which labs, such as 04,12.")],
    secret: Annotated[Path | None, typer.Option(help="A file with your secret [default: OUT/secret.key].")] = None,
    roster: Annotated[Path | None, typer.Option(help="The class's list, a CSV with a column `student`.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes at once [default: the cores].")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Wall seconds one exercise may take.")] = 60,
    dask: Annotated[str | None, typer.Option(help="The address of a Dask scheduler, to grade on a cluster.")] = None,
    backend: Annotated[str, typer.Option(help="What shuts submissions in: bubblewrap or docker.")] = "bubblewrap",
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run submissions with your rights, not shut in.")] = False,
) -> None:
    """Grade a class's notebooks, each exercise shut in by itself. Run it again to go on where it stopped."""
    from pixelpolicy.course import grading
    from pixelpolicy.course.grading import feedback, report, tables

    started = time.monotonic()
    numbers = _labs(labs)
    known = tables.read_roster(roster)
    key = grading.read_secret(secret or out / "secret.key")
    if unsafe:
        err.print("Submissions run with your own rights: they can read and delete what you can.", style="yellow")
    done = grading.grade(submissions, out, labs=numbers, secret=key, jobs=jobs or os.cpu_count() or 1,
                         limits=grading.Limits(seconds=seconds), dask=dask,
                         backend="unsafe" if unsafe else backend)  # fmt: skip
    written = [*tables.write_tables(done, out, known), report.write_report(done, out)]
    feedback.write_feedback(done, out)
    for note in done.notes:
        err.print(note, style="yellow", markup=False, soft_wrap=True)
    console = Console(highlight=False, soft_wrap=True)  # `out` is a folder here
    console.print(f"{len(done.students)} students, {len(done.papers)} notebooks: {done.run} exercises graded, "
                  f"{done.kept} taken over from before, {time.monotonic() - started:.0f} s.")  # fmt: skip
    for path in written:
        console.print(f"written: {path}", markup=False)
    console.print(f"written: {out / 'feedback'}, a page for each student", markup=False)


def _labs(text: str) -> list[int]:
    """Labs as given on the command line: `04,12`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise LabError(f"{text!r} names no labs: give their numbers with commas between, as in 04,12")
    return [int(word) for word in words]


@app.command()
def mutation(
    labs: Annotated[str | None, typer.Option(help="Which labs, such as 04,12 [default: all].")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    repeats: Annotated[int, typer.Option(min=0, help="How often each check must say the same.")] = 10,
) -> None:
    """Ask every check about mutants of its solution; runs what has changed (minutes; goes on if broken off)."""
    from pixelpolicy.course import mutation_score as of

    stale = of.stale(of.course_root())
    found = of.run(_labs(labs) if labs else None, jobs=jobs, repeats=repeats)
    table = Table("exercise", "mutants", "caught", "late", "equivalent", "flaky")
    for score in found:
        equivalent = len(score.mutants) - score.count()
        counts = (score.count(), score.caught, score.count(of.LATE), equivalent, len(score.flaky))
        table.add_row(f"{score.id} {score.name}", *map(str, counts))
    out.print(table)
    for score in found:
        for one in score.survivors:
            out.print(f"{score.id} passes, line {one.line}, {one.operator}:\n{one.diff}", markup=False)
        for name in score.passing_mistakes:
            out.print(f"{score.id} lets a mistake written by hand pass: {name}", markup=False)
    total, caught = sum(score.count() for score in found), sum(score.caught for score in found)
    out.print(f"{caught} of {total} mutants caught. The book's page is made of benchmarks/mutation/ by `make book`.")
    stale += [f"{score.id}: {id} (it is caught)" for score in found for id in score.refuted]
    if stale:
        raise LabError(f"tests/mutants/equivalent.yaml names what is no equivalent mutant: {'; '.join(stale)}")
    if caught < of.TARGET * total or any(score.passing_mistakes or score.flaky for score in found):
        raise LabError(f"fewer than {of.TARGET:.0%} are caught, or a mistake passes, or a check is flaky: see above")


capstone = typer.Typer(no_args_is_help=True, help="The capstone of lab 19: gold queries, submissions, leaderboard.")
app.add_typer(capstone, name="capstone")
Weights = Annotated[Path, typer.Argument(help="A safetensors difference to the base, or a generator's folder.")]


@capstone.command()
def query(weights: Weights) -> None:
    """Ask the gold reward about weights, for one of your queries."""
    from pixelpolicy.course.capstone import open_ledger

    ledger = open_ledger()
    _tell(ledger.query(weights), ledger.left)


@capstone.command()
def submit(weights: Weights, name: Annotated[str, typer.Option(help="What the leaderboard calls this entry.")]) -> None:
    """Enter weights into your leaderboard: the first time for nothing, later for a query."""
    from pixelpolicy.course.capstone import open_ledger

    ledger = open_ledger()
    _tell(ledger.submit(weights, name), ledger.left)


@capstone.command()
def leaderboard() -> None:
    """Show your submissions, best gold first."""
    from pixelpolicy.course.capstone import open_ledger

    ledger = open_ledger()
    if not (entries := ledger.leaderboard()):
        out.print(f"There is no submission yet, and {ledger.left} queries are left.")
        return
    table = Table("name", "gold", "accuracy", "diversity", "asked before", "when")
    for entry in entries:
        told = entry.scores
        gold = f"{told.gold:.3f} ± {told.gold_se:.3f}"
        table.add_row(entry.name, gold, f"{told.accuracy:.3f}", f"{told.diversity:.3f}", str(entry.asked), entry.when)
    out.print(table)
    out.print("All of it was scored on this machine: the budget is a rule, not a lock.")


def _tell(entry: Any, left: int) -> None:
    told = entry.scores
    out.print(f"gold {told.gold:.3f} ± {told.gold_se:.3f}; accuracy {told.accuracy:.3f}, diversity "
              f"{told.diversity:.3f}; {left} queries left", soft_wrap=True)  # fmt: skip


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="Which checkpoint: shapes, furniture, walker, proxy ...")],
    seed: Annotated[int, typer.Option(help="What everything random follows from.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Where the run lies [default: runs/pretrain-NAME].")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch [default: torch's own].")] = None,
) -> None:
    """Remake a checkpoint (hours; nobody needs to). Training goes on where an interrupted run of it stopped."""
    if name in REWARDS:
        return _remake(name, folder or Path("runs") / f"pretrain-{name}")
    if name not in BASES:
        known = ", ".join([*BASES, *REWARDS])
        raise CheckpointError(f"there is no checkpoint {name!r} to make; those there are: {known}")
    from importlib import import_module

    import torch

    from pixelpolicy.generators.checkpoint import CHECKPOINTS

    recipes = import_module(BASES[name])

    if threads:
        torch.set_num_threads(threads)
    small = profiles.profile() == "smoke"
    folder = folder or Path("runs") / f"pretrain-{name}{'-smoke' if small else ''}"
    recipe = recipes.recipe_of(name, seed, small=small)
    out.print(f"Training '{name}' in {folder}: scores go to metrics.jsonl there, pictures to samples/.")
    generator = recipes.pretrain(folder, recipe, _reporter(folder))
    scores = recipes.publish(generator, folder / "checkpoint", recipe, per_kind=4 if small else 256)
    out.print(f"The checkpoint is in {folder / 'checkpoint'}; its accuracy is {scores['test']['accuracy']:.2f}.")
    out.print(f"To let `load({name!r})` find it, put it in the place of {CHECKPOINTS / name}.")


def _remake(name: str, folder: Path) -> None:
    """Remake a checkpoint of a reward from the packages it was made of."""
    from importlib import import_module

    from pixelpolicy.verified import CHECKPOINTS

    out.print(f"Making '{name}' in {folder}.")
    import_module(REWARDS[name]).publish(folder / "checkpoint")
    out.print(f"The checkpoint is in {folder / 'checkpoint'}; put it in the place of {CHECKPOINTS / name} to use it.")


def _reporter(folder: Path) -> Callable[[str, int, Any, dict[str, float]], None]:
    """A callback that appends scores to metrics.jsonl and draws the same prompts and seeds each time."""
    from pixelpolicy.viz import sample_sheet
    from pixelpolicy.worlds import shapes

    texts, seeds = shapes.evaluation_pairs("validation", 8)
    (folder / "samples").mkdir(parents=True, exist_ok=True)

    def report(stage: str, step: int, generator: Any, scores: dict[str, float]) -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in scores.items()}
        line = {"stage": stage, "step": step, "time": round(time.time()), **finite}
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if stage == "autoencoder" or generator.world is not shapes:
            return  # nothing can be sampled yet, or it is no picture
        pictures = generator.generate(texts, seeds)
        accepted = [verdict.strict for verdict in shapes.verify(pictures.numpy(), texts)]
        alt = f"Samples of stage {stage} at step {step}: {sum(accepted)} of {len(texts)} show what was asked."
        sample_sheet(pictures, texts, alt=alt, accepted=accepted).save(folder / "samples" / f"{stage}-{step:06d}.png")

    return report


@app.command()
def book() -> None:
    """Build the book into _build/html; its pages load nothing from elsewhere."""
    from pixelpolicy.book.build import build
    from pixelpolicy.course.files import course_root

    out.print("Building the book: about a minute, and longer the first time, when npm fetches scripts and fonts.")
    built = build(course_root())
    for note in built.notes:
        out.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    out.print(f"Built in {built.seconds:.0f} s, without warnings: {built.html / 'index.html'}", soft_wrap=True)
    out.print(f"Serve it so that search and widgets work: python -m http.server -d {built.html}", soft_wrap=True)


@app.command("book-files")
def book_files() -> None:
    """Make PDF, EPUB and a zip of the book that was built, with checksums, in _build/files (some minutes)."""
    from pixelpolicy.book.downloads import make_downloads
    from pixelpolicy.course.files import course_root

    build = course_root() / "_build"
    out.print("Printing the book's pages with Chromium, and making the EPUB: some minutes.")
    for path in make_downloads(build, build / "files"):
        out.print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


@app.command()
def publish(
    site: Annotated[Path, typer.Argument(help="The folder of the whole site, as of a branch gh-pages.")],
    release: Annotated[str | None, typer.Option(help="Its number, for a folder that stays: 1.0.2.")] = None,
) -> None:
    """Put the book that was built into SITE/latest, and into a folder of its own where it is a release."""
    from pixelpolicy.book import publish as publishing
    from pixelpolicy.course.files import course_root

    for place in publishing.publish(course_root() / "_build" / "html", site, release):
        out.print(f"published: {place}", soft_wrap=True)


@app.command()
def check() -> None:
    """Look the course over as its maintainers do: lint, format, floors, labs, links, environment."""
    from pixelpolicy import upkeep
    from pixelpolicy.course.files import course_root

    root, failed = course_root(), 0
    for title, look in upkeep.CHECKS.items():
        complaints = look(root)
        out.print(f"[{'red' if complaints else 'green'}]{'fails' if complaints else 'holds'}[/]  {title}")
        for complaint in complaints:
            out.print(f"       {complaint}", markup=False, soft_wrap=True)
        failed += bool(complaints)
    if failed:
        out.print(f"{failed} of {len(upkeep.CHECKS)} checks fail.")
        raise typer.Exit(1)
