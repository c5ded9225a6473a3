"""The library is built in floors: a module imports only what design.md's table says it knows, never upwards."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pixelpolicy

ROOT = Path(pixelpolicy.__file__).parent

# Modules beside the packages (errors, profiles) are the ground: all may import them, they import nothing above.
GROUND = 0
FLOORS = {
    "rl": 1,
    "control": 2,
    "worlds": 2,
    "generators": 3,
    "policies": 4,
    "pipelines": 4,
    "rewards": 4,
    "finetune": 5,
    "viz": 6,
    "widgets": 6,
    "course": 6,
    "atlas": 6,
    "book": 6,
    "upkeep": 7,
    "cli": 7,
    "__main__": 7,
}
# The column "knows"; a floor that is not listed knows all below it.
KNOWS = {
    "rl": set(),
    "control": {"rl"},
    "worlds": set(),
    "generators": {"worlds"},
    "policies": {"rl", "generators"},
    # A writer of tokens keeps to the grammar of layouts, and is sampled as the small one is.
    "pipelines": {"rl", "policies.transitions", "generators.grammar", "generators.sampling", "worlds.layouts"},
    "rewards": {"rl", "worlds", "generators"},
    "finetune": {"policies", "rewards", "rl"},
    "atlas": set(),
    "widgets": {"rl", "control", "worlds", "generators", "policies", "pipelines", "rewards", "finetune", "viz"},
    "book": {"course", "viz", "widgets", "atlas"},
    "cli": set(FLOORS),
    "__main__": {"cli"},
}
RL_MAY_USE = {"torch", "jaxtyping", "pixelpolicy", *sys.stdlib_module_names}
SLOW_TO_IMPORT = {"diffusers", "transformers", "peft", "accelerate"}


def imports(source: str, module: str, is_package: bool = False) -> list[tuple[str, bool]]:
    """Absolute dotted names a source imports, and whether the import runs as soon as the module is imported."""
    found = []

    def visit(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".") if is_package else module.split(".")[:-1]
                anchor = anchor[: len(anchor) - node.level + 1]
                base = ".".join([*anchor, *base.split(".")]).strip(".")
            found.extend((f"{base}.{alias.name}", at_once) for alias in node.names)
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for field, value in ast.iter_fields(node):
            typing_only = isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.dump(node.test)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, at_once and not late and not typing_only)

    visit(ast.parse(source), True)
    return found


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of a module, such as ``pixelpolicy.rl.losses``."""
    here = (module.split(".") + ["__init__"])[1]
    wrong = []
    for name, at_once in imports(source, module, is_package):
        top, *path = name.split(".")
        if here == "rl" and top not in RL_MAY_USE:
            wrong.append(f"{module} imports {top}; rl knows torch alone")
        if top in SLOW_TO_IMPORT and at_once:
            wrong.append(f"{module} imports {top} at once; import it inside the function that needs it")
        if top == "diffusers" and module.startswith("pixelpolicy.course.checks"):
            wrong.append(f"{module} imports diffusers; a check must start in half a second")
        there = path[0] if top == "pixelpolicy" and path else here
        floor, target = FLOORS.get(here, GROUND), FLOORS.get(there, GROUND)
        if there == here or target == GROUND:
            continue
        allowed = KNOWS.get(here)
        if allowed is None:
            known = target < floor
        else:
            known = any(".".join(path[: k.count(".") + 1]) == k for k in allowed)
        if not known:
            wrong.append(f"{module} (floor {floor}) imports {name} (floor {target}), which it must not know")
    return wrong


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(["pixelpolicy", *(p for p in parts if p != "__init__")])] = path
    return found


@pytest.mark.parametrize("module", modules())
def test_no_module_imports_what_it_must_not_know(module):
    path = modules()[module]
    wrong = faults(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_floor():
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages <= set(FLOORS), "give the new package a floor here and in design.md's table"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pixelpolicy.rl.losses", "from pixelpolicy.worlds import shapes"),
        ("pixelpolicy.rl.losses", "import numpy as np"),
        ("pixelpolicy.rl.losses", "def f():\n    import diffusers"),
        ("pixelpolicy.errors", "from pixelpolicy.rl import Reward"),
        ("pixelpolicy", "from pixelpolicy import rl"),
        ("pixelpolicy.control.ppo", "from pixelpolicy.worlds import canvas"),
        ("pixelpolicy.worlds.canvas", "import pixelpolicy.control.ppo"),
        ("pixelpolicy.generators.image", "from pixelpolicy.rl import gae"),
        ("pixelpolicy.generators.image", "import diffusers"),
        ("pixelpolicy.generators.image", "class A:\n    from diffusers import AutoencoderKL"),
        ("pixelpolicy.policies.denoising", "from ..rewards import verifier"),
        ("pixelpolicy.policies.denoising", "from .. import finetune"),
        ("pixelpolicy.policies.denoising", "def f():\n    from pixelpolicy.finetune import loop"),
        ("pixelpolicy.pipelines.flux", "from pixelpolicy.policies.denoising import DenoisingPolicy"),
        ("pixelpolicy.pipelines.flux", "from pixelpolicy.policies import DenoisingPolicy"),
        ("pixelpolicy.finetune.loop", "from pixelpolicy.viz import curves"),
        ("pixelpolicy.course.run", "from pixelpolicy import viz"),
        ("pixelpolicy.course.checks.lab12", "def f():\n    from diffusers import DDIMScheduler"),
        ("pixelpolicy.atlas.papers", "from pixelpolicy.rl import gae"),
        ("pixelpolicy.course.run", "from pixelpolicy.cli import app"),
        ("pixelpolicy.course.run", "from pixelpolicy.book.executed import keep_executed"),
        ("pixelpolicy.book.build", "from pixelpolicy.rl import gae"),
        ("pixelpolicy.upkeep", "from pixelpolicy.cli import app"),
    ],
)
def test_a_forbidden_import_is_noticed(module, source):
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pixelpolicy.rl.losses", "import torch, math\nfrom pixelpolicy.rl.records import Rollout"),
        ("pixelpolicy.rl.losses", "from .records import Rollout\nfrom ..errors import RolloutError"),
        ("pixelpolicy.generators.image", "if TYPE_CHECKING:\n    from diffusers import AutoencoderKL"),
        ("pixelpolicy.generators.image", "def f():\n    from diffusers import AutoencoderKL"),
        ("pixelpolicy.pipelines.flux", "from pixelpolicy.policies.transitions import cps"),
        ("pixelpolicy.pipelines.flux", "from pixelpolicy.policies import transitions"),
        ("pixelpolicy.finetune.grpo", "from pixelpolicy.policies import cps\nfrom pixelpolicy import rl, rewards"),
        ("pixelpolicy.viz.figures", "from pixelpolicy.worlds import shapes"),
        ("pixelpolicy.cli", "from pixelpolicy import course, viz, generators, upkeep, __version__"),
        ("pixelpolicy.course.results", "from pixelpolicy.profiles import profile"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert faults(source, module) == []


@pytest.mark.parametrize("module", ["pixelpolicy.rl", "pixelpolicy.rl.oracles"])
def test_rl_imports_neither_diffusers_nor_gymnasium(module):
    """Asked of the interpreter, because ast sees direct imports only."""
    program = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded and "pixelpolicy" in loaded
    assert not {"gymnasium", *SLOW_TO_IMPORT} & set(loaded)
