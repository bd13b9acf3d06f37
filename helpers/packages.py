"""Adding Python packages beside those that are here, none of which is replaced: `python -m helpers install`.

Needs nothing but Python and pip, since on Colab it runs before anything is installed. Nothing waits without end, and nobody is
asked for anything.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import invalidate_caches, metadata
from pathlib import Path

from helpers.errors import CourseError
from helpers.terminal import printable

WORK = 3600  # seconds for pip to fetch and build

# What git and ssh would ask somebody is refused at once. In English, which `reason` reads.
UNASKED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "LANGUAGE": "en",
}
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # what a requirement begins with


def read_requirements(path: Path) -> list[str]:
    """The requirements in a file of pip's, such as ["torch>=2.10", "nbval>=0.11"], without its comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def name_of(requirement: str) -> str:
    """The package that a requirement names: "torch" of "torch>=2.10"."""
    return NAME.match(requirement)[0]


def version_of(name: str) -> str | None:
    """The version of a package that is installed, else None. Reads its metadata, imports nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def in_range(version: str, ranges: str) -> bool:
    """Whether a version lies in a range like ">=2.10,!=2.12.0": the signs >=, < and != are known."""

    def numbers(text):
        found = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", text)[0])]
        return [*found, 0, 0, 0, 0][:4]  # 2.12 is 2.12.0

    for clause in filter(None, ranges.split(",")):
        sign, limit = re.match(r"\s*(>=|<|!=)\s*(.+)", clause).groups()
        found, limit = numbers(version), numbers(limit)
        if not {">=": found >= limit, "<": found < limit, "!=": found != limit}[sign]:
            return False
    return True


def add(wanted: Iterable[str]) -> bool:
    """Install those requirements of which no version is here, and say in one line what was added.

    What is here keeps its version, even one that the requirement leaves out.

    Args:
        wanted: as pip takes them, such as ["nbval>=0.11"].

    Returns:
        Whether every package is here now.

    Raises:
        CourseError: there is no pip.
    """
    missing = [requirement for requirement in wanted if not version_of(name_of(requirement))]
    if not missing:
        print("All packages asked for are here: nothing was installed.")
        return True
    try:
        before = versions()
    except (subprocess.SubprocessError, OSError) as error:
        raise CourseError(
            f"pip could not be asked what is here ({reason(error)}): python -m ensurepip brings it."
        ) from error
    print(f"Installing {', '.join(map(name_of, missing))} ...", flush=True)
    failed = {", ".join(missing): try_beside(before, missing)}
    if any(failed.values()) and len(missing) > 1:  # what one of them wants need not keep the others out
        failed = {requirement: try_beside(before, [requirement]) for requirement in missing}
    invalidate_caches()  # so that this process finds what is new, without a restart
    print(difference(before, versions()))
    # pip may fail after it has added a package: at its summary, where a version is none to it
    lacking = {one: why for one, why in failed.items() if why and not version_of(name_of(one))}
    for requirement, why in lacking.items():
        print(f"{requirement} was not added: {why}. What is here stays as it is.")
    return not lacking


def try_beside(before: dict[str, str], requirements: list[str]) -> str | None:
    """As `install_beside`; returns why it failed, or None."""
    try:
        install_beside(before, requirements)
    except (subprocess.SubprocessError, OSError) as error:
        return reason(error)
    return None


def install_beside(before: dict[str, str], requirements: Iterable[str], *options: str) -> None:
    """Install requirements, with pip's options; none of the packages in `before`, {name: version}, is replaced.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: as in `run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        as_they_are = Path(folder) / "constraints.txt"
        # three signs: the version by the letter, since machines hold some that are no versions to pip
        constraints = "".join(f"{name}==={version}\n" for name, version in before.items())
        as_they_are.write_text(constraints, encoding="utf-8")
        pip("install", *options, "--constraint", str(as_they_are), *requirements)


def compare(before: dict[str, str], after: dict[str, str]) -> tuple[list[str], list[str]]:
    """What an installation added, such as ["nbval 0.11.0"], and what it replaced, such as ["numpy 2.1.3 (now 2.5.5)"]."""
    added = [f"{name} {version}" for name, version in after.items() if name not in before]
    replaced = [
        f"{name} {version} (now {after.get(name, 'gone')})"
        for name, version in before.items()
        if after.get(name) != version
    ]
    return added, replaced


def difference(before: dict[str, str], after: dict[str, str]) -> str:
    """What an installation did, in one line: "2 packages added (nbval 0.11.0, coverage 7.17.5), none replaced." """
    added, replaced = compare(before, after)
    names = f" ({', '.join(added)})" if 0 < len(added) <= 12 else ""
    return f"{len(added)} packages added{names}, {', '.join(replaced) or 'none'} replaced."


def why_unusable(package: str, error: Exception) -> str:
    """Why an optional package is of no use here, in one line; `error` is what its use raised."""
    version = version_of(package)
    if not version:
        return f'{package} is not installed. packages.add(["{package}"]) in a new cell adds it and replaces nothing.'
    return f"{package} {version} is here and cannot be used: {reason(error)}."


def versions(python: str = sys.executable) -> dict[str, str]:
    """Every package installed for a Python, this one by default, and its version, as pip sees them now."""
    return {
        entry["name"]: entry["version"] for entry in json.loads(pip("list", "--format=json", python=python))
    }


def pip(action: str, *arguments: str, python: str = sys.executable) -> str:
    """What the pip of a Python prints; errors as in `run`."""
    return run(python, "-m", "pip", action, "--no-input", "--disable-pip-version-check", *arguments)


def run(
    *command: str, seconds: float = WORK, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """What a command prints. It has no terminal to ask for anything, and when its time is up it ends with all it started.

    Args:
        env: variables beside those of this process.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: it failed, took longer than `seconds`, or could not be started.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings = {
        "encoding": "utf-8",
        "errors": "replace",
        "cwd": cwd,
        "env": os.environ | UNASKED | (env or {}),
    }
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
    """What went wrong, in one line: in our words where the cause is a usual one, else the most telling line of a program."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} is not installed"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'pip'}: {error.strerror}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"pip took longer than {error.timeout / 60:.0f} minutes"
    if not isinstance(error, subprocess.CalledProcessError):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return printable(lines[-1] if len(lines) < 3 else lines[0])[:200].rstrip(".")
    wants = re.search(r"^ +(.+ depends on .+)$", error.stdout or "", re.MULTILINE)
    if wants:  # pip's own word for it is "ResolutionImpossible"
        return printable(f"{wants[1].strip()}, which is not what is here")[:200]
    lines = [printable(line.strip()) for line in error.stderr.split("\n")]
    telling = [line for mark in ("fatal:", "ERROR:", "× ") for line in lines if line.startswith(mark)]
    return telling[0].removeprefix("× ").rstrip(":")[:200] if telling else "pip failed"
