"""Installing the real trlX beside what is there: `python -m helpers trlx`.

trlX is not on PyPI, and what it asks for was written in 2023. So it is installed from GitHub at the commit the bridge was
tried with, and of its requirements only those which `import trlx` really needs; nothing that is installed is replaced.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.errors import CourseError

COMMIT = "3340c2f3a56d1d14fdd5f13ad575121fa26b6d92"  # the newest, of January 2024
ADDRESS = "https://github.com/CarperAI/trlx"
NEEDED = [
    "attrs>=22.1,<27",
    "cattrs>=22.2,<27",
    "deepspeed>=0.17,<0.20",
    "einops>=0.7,<0.9",
    "ray>=2.48,<2.61",
    "rich>=13,<16",
    "tqdm>=4.66,<5",
    "typeguard>=2.13,<5",
    "wandb>=0.17,<0.29",
]
WITHOUT_THEIR_NEEDS = ["torchtyping==0.1.5"]  # asks for typeguard 2, works with 4


def installed() -> str | None:
    """trlX's version and commit, "0.7.0, commit 3340c2f", or None where it is not installed."""
    try:
        trlx = importlib.metadata.distribution("trlx")
    except importlib.metadata.PackageNotFoundError:
        return None
    origin = json.loads(trlx.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    if commit is None:
        return f"{trlx.version}, commit unknown"
    return f"{trlx.version}, commit {commit[:7]}" + ("" if commit == COMMIT else " (not the course's)")


def install() -> None:
    """Install trlX and what its import needs, and say what was added.

    Raises:
        CourseError: in one line, why it could not be done; the built-in engine needs none of this.
    """
    if installed() and importable():
        print(f"trlX {installed()} is installed already.")
        return
    began, before = time.monotonic(), versions()
    print("trlX, from GitHub ...", flush=True)
    pip("--no-deps", f"trlx @ git+{ADDRESS}@{COMMIT}", why="GitHub cannot be reached, or there is no git")
    with tempfile.TemporaryDirectory() as folder:
        as_they_are = Path(folder) / "constraints.txt"
        as_they_are.write_text("".join(f"{name}=={version}\n" for name, version in before.items()))
        print("what its import needs: ray, deepspeed and smaller ones ...", flush=True)
        # deepspeed's build looks at the torch that is installed, so it cannot be built apart from it
        pip(
            "--no-build-isolation",
            "--constraint",
            str(as_they_are),
            *NEEDED,
            why="what trlX needs cannot be fetched, or does not fit what is here",
        )
        pip("--no-deps", *WITHOUT_THEIR_NEEDS, why="PyPI cannot be reached")
    after = versions()
    replaced = {name: (old, after.get(name)) for name, old in before.items() if after.get(name) != old}
    if replaced:
        raise CourseError(f"installing trlX replaced {replaced}: please report this")
    if not importable():
        raise CourseError(
            "trlX was installed but cannot be imported; `python -c 'import helpers.trlx_bridge'` shows why"
        )
    added = len(after) - len(before)
    print(f"trlX {installed()}: {added} packages added, none replaced, {time.monotonic() - began:.0f} s.")


def importable() -> bool:
    """Whether the bridge loads, in a process of its own: this one may have looked for it before it was there."""
    command = [sys.executable, "-c", "import helpers.trlx_bridge"]
    here = Path(__file__).resolve().parent.parent
    return subprocess.run(command, cwd=here, capture_output=True).returncode == 0


def versions() -> dict[str, str]:
    """Every installed package and its version, as pip sees them now."""
    command = [sys.executable, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {entry["name"]: entry["version"] for entry in json.loads(listed)}


def pip(*arguments: str, why: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        detail = next((line for line in reversed(lines) if "rror" in line or "fatal" in line), "pip failed")
        raise CourseError(
            f"trlX was not installed ({why}: {detail.strip()[:160]}); the course goes on with its built-in engine."
        )
