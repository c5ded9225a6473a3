"""What shuts answers in: the rules both backends share, and the one end of Docker's that needs no engine."""

import functools
import struct
import subprocess
import time

import pytest

from pixelpolicy.course.grading import BACKENDS, sandbox
from pixelpolicy.course.grading.backends import bubblewrap, calls, docker, view


def run_filter(program, arch, number, first=0):
    """What the kernel would answer, by the meaning of the five instructions that the program uses."""
    rules = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    data, at, held = {0: number, 4: arch, 16: first}, 0, 0
    while True:
        code, yes, no, value = rules[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            held = data[value]
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_both_forms_of_the_rules_say_the_same(machine, monkeypatch):
    monkeypatch.setattr(calls.platform, "machine", lambda: machine)
    arch, clone, denied = calls._CALLS[machine]
    run = functools.partial(run_filter, calls.program(), arch)
    allowed, refused, no_such_call, killed = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    assert {name for name, number in denied.items() if run(number) != refused} == set()
    assert run(clone) == refused and run(clone, first=0x00010000) == allowed  # a process, a thread
    assert run(435) == no_such_call and run(0x40000000) == killed and run_filter(calls.program(), 1, 0) == killed
    assert run(1 if machine == "x86_64" else 64) == allowed  # write
    profile = calls.profile()
    assert set(profile["syscalls"][0]["names"]) == set(denied) and profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert profile["architectures"] == [f"SCMP_ARCH_{machine.upper()}"]


def test_a_machine_without_rules_is_told(monkeypatch):
    monkeypatch.setattr(calls.platform, "machine", lambda: "sparc")
    assert "not for sparc" in calls.unavailable()
    monkeypatch.setattr(calls.sys, "platform", "darwin")
    assert "on Linux alone" in calls.unavailable()


@pytest.mark.parametrize("name", ["bubblewrap", "docker"])
def test_an_environment_in_pieces_is_told_before_anything_is_graded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(view.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(view.sys, "base_prefix", str(tmp_path))
    backend = BACKENDS[name]
    backend.unavailable.cache_clear()
    try:
        assert "outside of this Python's own environment" in backend.unavailable()
    finally:
        backend.unavailable.cache_clear()


def test_an_answer_over_two_pipes(tmp_path, monkeypatch):
    """As in a container, whose standard streams are all that leads out of it."""

    def start(channel, task, limits):
        task["limits"].pop("RLIMIT_NPROC")
        process = subprocess.Popen(
            [*view.PYTHON, str(view.GRADER / "child.py"), "0", "1"], stdin=channel, stdout=channel,
            env=view.ENVIRONMENT, cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
        return functools.partial(bubblewrap.end, process)

    monkeypatch.setattr(BACKENDS["unsafe"], "start", start)
    code = "def twice(x):\n    print('on no channel')\n    return [2 * y for y in x]"
    library = sandbox.library_without((), tmp_path / "cache")
    with sandbox.Answer("twice", [code], [False], library, backend="unsafe") as answer:
        answer.begin()
        assert answer.function([1, 2]) == [2, 4]
        large = list(range(200_000))
        assert answer.function(large) == [2 * x for x in large]


def test_containers_of_a_grader_that_was_killed_are_ended(monkeypatch):
    if why := docker.unavailable():
        pytest.skip(f"nothing can be shut in: {why}")

    def listed():
        form = ["--format", "{{.Names}}", "--filter", "name=pixelpolicy-test"]
        return subprocess.run(["docker", "ps", "--all", *form], capture_output=True, text=True, check=True).stdout

    for name, until in (("pixelpolicy-test-late", time.time() - 1), ("pixelpolicy-test-not-yet", time.time() + 600)):
        command = ["docker", "create", "--name", name, "--label", f"pixelpolicy.until={int(until)}", docker.IMAGE, "/x"]
        subprocess.run(command, check=True, capture_output=True)
    try:
        docker.unavailable.cache_clear()
        assert docker.unavailable() == ""
        assert listed().split() == ["pixelpolicy-test-not-yet"]
    finally:
        subprocess.run(["docker", "rm", "--force", "pixelpolicy-test-late", "pixelpolicy-test-not-yet"], check=False)
