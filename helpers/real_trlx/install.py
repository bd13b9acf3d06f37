"""Installing the real trlX beside what is there: `python -m helpers trlx`.

trlX is not on PyPI, and what it asks for was written in 2023. So it is installed from GitHub at the commit that
patches.py was tried with, and of its requirements only those which `import trlx` really needs; nothing that is installed is
replaced.
Nobody is asked for a login, and nothing is waited for without end.
"""

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.terminal import printable

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
ANSWER, WORK = 30, 3600  # seconds: for GitHub to answer at all, and for pip to fetch and build

# What git and ssh would ask somebody is refused at once. In English, which `reason` reads.
UNASKED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "LANGUAGE": "en",
}


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
        run("git", "ls-remote", ADDRESS, "HEAD", seconds=ANSWER)  # before anything is installed
        before = versions()
        install_beside(before)
        if not importable():
            pip("uninstall", "--yes", "trlx")
            print(
                "trlX was installed and could not be imported, so it was removed. The built-in engine trains."
            )
            return False
    except (subprocess.SubprocessError, OSError) as error:
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


def install_beside(before: dict[str, str]) -> None:
    """Install what trlX's import needs, and trlX; none of the packages in `before`, {name: version}, is replaced.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: as in `run`.
    """
    print("What trlX's import needs: ray, deepspeed and smaller ones ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        as_they_are = Path(folder) / "constraints.txt"
        constraints = "".join(f"{name}=={version}\n" for name, version in before.items())
        as_they_are.write_text(constraints, encoding="utf-8")
        # deepspeed's build looks at the torch that is installed, so it cannot be built apart from it
        pip("install", "--no-build-isolation", "--constraint", str(as_they_are), *NEEDED)
    missing = [needed for needed in WITHOUT_THEIR_NEEDS if needed.split("==")[0] not in before]
    if missing:  # another version that is here stays, and trlX is tried with it
        pip("install", "--no-deps", *missing)
    print("trlX, from GitHub ...", flush=True)
    pip("install", "--no-deps", f"trlx @ git+{ADDRESS}@{COMMIT}")  # last: where it is, it trains


def importable() -> bool:
    """Whether trlX loads with what mends it, in a process of its own: this one may have looked for it before it was there."""
    course = Path(__file__).resolve().parents[2]
    try:
        run(sys.executable, "-c", "import helpers.real_trlx.train", cwd=course)
    except subprocess.SubprocessError:
        return False
    return True


def versions() -> dict[str, str]:
    """Every installed package and its version, as pip sees them now."""
    return {entry["name"]: entry["version"] for entry in json.loads(pip("list", "--format=json"))}


def pip(action: str, *arguments: str) -> str:
    """What pip prints; errors as in `run`."""
    return run(sys.executable, "-m", "pip", action, "--no-input", "--disable-pip-version-check", *arguments)


def run(*command: str, seconds: float = WORK, cwd: Path | None = None) -> str:
    """What a command prints. It has no terminal to ask for anything, and when its time is up it ends with all it started.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: it failed, took longer than `seconds`, or could not be started.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings = {"encoding": "utf-8", "errors": "replace", "cwd": cwd, "env": os.environ | UNASKED}
    # a session of its own has no terminal, which git and ssh would otherwise open past a closed stdin
    with subprocess.Popen(command, **pipes, **settings, start_new_session=True) as process:
        try:
            printed, errors = process.communicate(timeout=seconds)
        except BaseException:  # the time is up; or Ctrl-C, which does not reach another session
            end(process)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed, errors)
    return printed


def end(process: subprocess.Popen) -> None:
    """Interrupt a command and all it started, upon which pip puts back what it was replacing; what then goes on is killed."""
    if not hasattr(os, "killpg"):  # Windows
        return process.kill()
    for way in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            os.killpg(process.pid, way)
            process.wait(10)


def reason(error: Exception) -> str:
    """What went wrong, in one line: in our words where the cause is a usual one, else the most telling line of pip or git."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed"
    if isinstance(error, OSError):
        return f"{error.filename or 'pip'}: {error.strerror}"
    if isinstance(error, subprocess.TimeoutExpired):
        if error.cmd[0] == "git":
            return f"github.com cannot be reached: no answer in {error.timeout:.0f} seconds"
        return f"pip took longer than {error.timeout / 60:.0f} minutes"
    if "Could not resolve host" in error.stderr or "unable to access" in error.stderr:
        return "github.com cannot be reached"
    if "could not read Username" in error.stderr or "Authentication failed" in error.stderr:
        return f"{ADDRESS} wants a login, which the course does not ask for"
    lines = [printable(line.strip()) for line in error.stderr.split("\n")]
    telling = [line for mark in ("fatal:", "ERROR:") for line in lines if line.startswith(mark)]
    return telling[0][:200] if telling else "pip failed"
