"""What has changed since the versions that the course was tested with: `make drift`."""

import json
import platform
import subprocess
from pathlib import Path

from packaging.utils import canonicalize_name

from helpers import packages
from helpers.course import ROOT
from helpers.errors import CourseError
from helpers.maintain.colab import needed, parse_list, read_list

UNKNOWN, NONE = "not known", "none"


def table(list_file: Path | None) -> list[tuple[str, ...]]:
    """For each requirement the version that was tested, the newest there is, Colab's, and what that means.

    Where the newest or Colab's list cannot be had, a line says why, and the table has the rest.
    """
    requirements = {canonicalize_name(packages.name_of(each)): each for each in needed()}
    tested = parse_list((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    print("Asking pip for the newest versions ...", flush=True)
    try:
        newest = newest_versions(list(requirements))
    except (subprocess.SubprocessError, OSError) as error:
        newest = {}
        print(f"The newest versions are not known: {packages.reason(error)}.")
    try:
        colab = read_list(list_file)
    except CourseError as error:
        colab = None
        print(error)
    python = ".".join(platform.python_version_tuple()[:2])
    head = ("requirement", "tested", f"newest for Python {python}", "Colab", "what changed")
    rows = [
        (
            each,
            tested.get(name, NONE),
            newest.get(name, UNKNOWN),
            UNKNOWN if colab is None else colab.get(name, NONE),
        )
        for name, each in requirements.items()
    ]
    return [head, *[(*row, what_changed(*row)) for row in rows]]


def newest_versions(names: list[str]) -> dict[str, str]:
    """The newest version of each package that pip would install for this Python; nothing is installed.

    Raises:
        CalledProcessError, TimeoutExpired, OSError: as in `packages.run`.
    """
    report = packages.pip(
        "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-", *names
    )
    found = [entry["metadata"] for entry in json.loads(report)["install"]]
    return {canonicalize_name(package["name"]): package["version"] for package in found}


def what_changed(requirement: str, tested: str, newest: str, colab: str) -> str:
    """In words, what the versions of a package mean: "same", or such as "newer; Colab's is another"."""
    ranges = requirement.removeprefix(packages.name_of(requirement))
    words = []
    if newest not in (UNKNOWN, tested):
        words.append("newer" if packages.in_range(newest, ranges) else f"the newest is FORBIDDEN by {ranges}")
    if colab == NONE:
        words.append("not on Colab")
    elif colab not in (UNKNOWN, tested):
        forbidden = not packages.in_range(colab, ranges)
        words.append(f"Colab's is FORBIDDEN by {ranges}" if forbidden else "Colab's is another")
    return "; ".join(words) or "same"
