"""Who may know whom in helpers/ (helpers/README.md says why), read off the imports; and every file is on the map."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from common import ROOT

HELPERS = ROOT / "helpers"
FILES = sorted(HELPERS.rglob("*.py"))


def module_of(path: Path) -> str:
    """helpers/ppo/loss.py -> helpers.ppo.loss"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(source: str, everywhere: bool = True) -> set[str]:
    """The modules that a source imports: at its top, or anywhere in it."""
    tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {node.module}
    return found


def reach(start: set[str], everywhere: bool = True) -> set[str]:
    """The modules of helpers that these import, directly or by way of others."""
    seen, waiting = set(), {name for name in start if name in MODULES}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= {
            m for m in imports(MODULES[name].read_text(encoding="utf-8"), everywhere) if m in MODULES
        } - seen
    return seen


def notebook_imports() -> set[str]:
    found = set()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and "helpers" in source:
                lines = [
                    line.strip()
                    for line in source.splitlines()
                    if line.strip().startswith(("from helpers", "import helpers"))
                ]
                found |= imports("\n".join(lines))
    return found


def in_room(name: str, *rooms: str) -> bool:
    return any(name == f"helpers.{room}" or name.startswith(f"helpers.{room}.") for room in rooms)


def test_nothing_that_a_notebook_imports_needs_the_maintainers_room():
    assert len(notebook_imports()) > 20
    needed = reach(notebook_imports(), everywhere=False)
    assert not [name for name in needed if in_room(name, "maintain")]


def test_ppo_knows_nothing_of_notebooks_widgets_scale_or_settings():
    outside = (
        "course",
        "assets",
        "doctor",
        "monitor",
        "figures",
        "widgets",
        "notebooks",
        "maintain",
        "engine",
        "verdict",
        "tiny",
    )
    for name, path in MODULES.items():
        if in_room(name, "ppo"):
            assert not [m for m in imports(path.read_text(encoding="utf-8")) if in_room(m, *outside)], name


@pytest.mark.parametrize("name", ["policy", "loss", "rollout", "trainer"])
def test_the_plain_files_read_as_if_the_others_did_not_exist(name):
    """No processes, shards, half precision, memory that runs out: only words in the module's docstring may name them."""
    source = (HELPERS / "ppo" / f"{name}.py").read_text(encoding="utf-8")
    assert not [
        m
        for m in imports(source)
        if in_room(m, "ppo.fast", "ppo.parallel", "real_trlx") or m.startswith("accelerate")
    ]
    tree = ast.parse(source)
    code = source.replace(ast.get_docstring(tree, clean=False), "")
    for word in ("accelerat", "autocast", "shard", "processes", "out of memory", "bfloat16"):
        assert word not in code, word


def test_widgets_know_no_torch():
    for name in reach({m for m in MODULES if in_room(m, "widgets")}, everywhere=False):
        heavy = imports(MODULES[name].read_text(encoding="utf-8"), everywhere=False) & {
            "torch",
            "transformers",
            "datasets",
        }
        assert not heavy, (name, heavy)


def test_only_the_door_and_the_bench_know_both_engines():
    knowing = {
        name
        for name, path in MODULES.items()
        if any(in_room(m, "real_trlx") for m in imports(path.read_text(encoding="utf-8")))
    }
    allowed = {"helpers.engine", "helpers.doctor", "helpers.__main__", "helpers.course"}
    assert not [n for n in knowing if not in_room(n, "real_trlx", "maintain") and n not in allowed]


def test_every_file_is_on_the_map():
    listed = (HELPERS / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        if path.name != "__init__.py":
            assert path.name in listed, path.relative_to(ROOT)


def test_the_lessons_modules_import_in_a_second_or_so():
    """Not the time, which depends on the machine, but what is loaded: a doctor and a widget need no torch."""
    for name in (
        "helpers.doctor",
        "helpers.course",
        "helpers.widgets.inspector",
        "helpers.feedback.ratings",
        "helpers.rewards",
    ):
        code = f"import sys, {name}; print('torch' in sys.modules or 'transformers' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "False\n", (name, done.stderr)
