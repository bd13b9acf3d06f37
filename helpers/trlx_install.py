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


def install() -> bool:
    """Install trlX and what its import needs, and say what was added; or say in one line why it could not be done.

    Returns:
        Whether trlX is here now. Where it is not, the course goes on with its built-in engine.
    """
    if installed() and importable():
        print(f"trlX {installed()} is here.")
        return True
    began, before = time.monotonic(), versions()
    try:
        run("git", "ls-remote", ADDRESS, "HEAD")  # before anything is installed
        print("What trlX's import needs: ray, deepspeed and smaller ones ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            as_they_are = Path(folder) / "constraints.txt"
            as_they_are.write_text("".join(f"{name}=={version}\n" for name, version in before.items()))
            # deepspeed's build looks at the torch that is installed, so it cannot be built apart from it
            pip("install", "--no-build-isolation", "--constraint", str(as_they_are), *NEEDED)
        pip("install", "--no-deps", *WITHOUT_THEIR_NEEDS)
        print("trlX, from GitHub ...", flush=True)
        pip("install", "--no-deps", f"trlx @ git+{ADDRESS}@{COMMIT}")  # last: where it is, it trains
        if not importable():
            pip("uninstall", "--yes", "trlx")
            print(
                "trlX was installed and could not be imported, so it was removed. The built-in engine trains."
            )
            return False
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"trlX was not installed ({reason(error)}). The course goes on with its built-in engine.")
        return False
    importlib.invalidate_caches()  # so that this process finds it too, without a restart
    after = versions()
    replaced = [name for name, version in before.items() if after.get(name) != version]
    print(
        f"trlX {installed()}: {len(after) - len(before)} packages added, "
        f"{', '.join(replaced) or 'none'} replaced, {time.monotonic() - began:.0f} s."
    )
    return True


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


def pip(action: str, *arguments: str) -> None:
    run(sys.executable, "-m", "pip", action, "--quiet", "--disable-pip-version-check", *arguments)


def run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)


def reason(error: Exception) -> str:
    """The one line of what pip or git said that tells most, in our words where it is the usual one."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed"
    if "Could not resolve host" in error.stderr or "unable to access" in error.stderr:
        return "github.com cannot be reached"
    lines = [line.strip() for line in error.stderr.splitlines()]
    telling = [line for mark in ("fatal:", "ERROR:") for line in lines if line.startswith(mark)]
    return telling[0][:200] if telling else "pip failed"
