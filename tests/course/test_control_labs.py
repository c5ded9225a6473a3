"""The labs of Part I are about control: nothing they import loads a model library."""

import ast
import subprocess
import sys

import pytest

from pixelpolicy.course.source import sources

HEAVY = {"diffusers", "transformers", "accelerate", "peft"}


def control_labs(root):
    return [path for path in sources(root) if int(path.name[:2]) <= 5]


def test_part_one_has_five_labs(root):
    assert [path.name[:2] for path in control_labs(root)] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_control_lab_loads_neither_diffusers_nor_transformers(root, number):
    """Every import of the lab and of its checks, wherever it stands, in an interpreter of its own."""
    (path,) = [path for path in control_labs(root) if int(path.name[:2]) == number]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports, "a lab without imports would prove nothing"
    program = "\n".join(
        [
            "import sys",
            *imports,
            f"import pixelpolicy.course.checks.lab{number:02d}",
            f"print(*sorted({HEAVY} & set(sys.modules)))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
