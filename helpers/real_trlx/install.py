"""Installing the real trlX beside what is there: `python -m helpers trlx`.

trlX is not on PyPI, and what it asks for was written in 2023. So it is installed from GitHub at the commit that
patches.py was tried with, and of its requirements only those which `import trlx` really needs; nothing that is installed is
replaced.
Nobody is asked for a login, and nothing is waited for without end.
"""

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

from helpers import packages

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
ANSWER = 30  # seconds for GitHub to answer at all


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
    if installed() and COMMIT[:7] not in installed():
        print(
            f"trlX {installed()} is here and cannot be imported. It stays as it is, since the course did not install it. "
            "For the course's: pip uninstall trlx, then the same again. Until then RLHF_ENGINE=builtin trains."
        )
        return False
    began = time.monotonic()
    try:
        packages.run("git", "ls-remote", ADDRESS, "HEAD", seconds=ANSWER)  # before anything is installed
        before = packages.versions()
        install_beside(before)
        if not importable():
            packages.pip("uninstall", "--yes", "trlx")
            print(
                "trlX was installed and could not be imported, so it was removed. The built-in engine trains."
            )
            return False
    except (subprocess.SubprocessError, OSError) as error:
        print(f"trlX was not installed ({reason(error)}). The course goes on with its built-in engine.")
        return False
    importlib.invalidate_caches()  # so that this process finds it too, without a restart
    after = packages.versions()
    print(
        f"trlX {installed()}: {packages.difference(before, after)} It took {time.monotonic() - began:.0f} s."
    )
    return True


def install_beside(before: dict[str, str]) -> None:
    """Install what trlX's import needs, and trlX; none of the packages in `before`, {name: version}, is replaced.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: as in `run`.
    """
    print("What trlX's import needs: ray, deepspeed and smaller ones ...", flush=True)
    missing = [needed for needed in NEEDED if packages.name_of(needed) not in before]
    if missing:  # another version that is here stays, and trlX is tried with it
        # deepspeed's build looks at the torch that is installed, so it cannot be built apart from it
        packages.install_beside(before, missing, "--no-build-isolation")
    missing = [needed for needed in WITHOUT_THEIR_NEEDS if packages.name_of(needed) not in before]
    if missing:
        packages.pip("install", "--no-deps", *missing)
    print("trlX, from GitHub ...", flush=True)
    packages.pip("install", "--no-deps", f"trlx @ git+{ADDRESS}@{COMMIT}")  # last: where it is, it trains


def importable() -> bool:
    """Whether trlX loads with what mends it, in a process of its own: this one may have looked for it before it was there."""
    course = Path(__file__).resolve().parents[2]
    try:
        packages.run(sys.executable, "-c", "import helpers.real_trlx.train", cwd=course)
    except subprocess.SubprocessError:
        return False
    return True


def reason(error: Exception) -> str:
    """What went wrong, in one line: of GitHub in our words, else as `packages.reason` has it."""
    if isinstance(error, subprocess.TimeoutExpired) and error.cmd[0] == "git":
        return f"github.com cannot be reached: no answer in {error.timeout:.0f} seconds"
    if isinstance(error, subprocess.CalledProcessError):
        if "Could not resolve host" in error.stderr or "unable to access" in error.stderr:
            return "github.com cannot be reached"
        if "could not read Username" in error.stderr or "Authentication failed" in error.stderr:
            return f"{ADDRESS} wants a login, which the course does not ask for"
    return packages.reason(error)
