"""The widgets are light: no torch, no pandas, no matplotlib, in whatever environment."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "helpers" / "widgets").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_imports_nothing_heavy(name):
    code = (
        f"import sys, helpers.widgets.{name}\nprint({{'torch', 'pandas', 'matplotlib'}} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
