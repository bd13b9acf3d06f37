"""The environment table: what is installed, what is missing, what to do.

Nothing heavy is imported at the top, so `python -m helpers doctor` works in a Python where nothing is installed.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from helpers import assets, course, files, packages, settings
from helpers.course import GIB, ROOT, results
from helpers.errors import CourseError

INSTALL = "python -m pip install -r requirements.txt"


@dataclass(frozen=True)
class Check:
    """One row of the environment table."""

    name: str
    found: str
    ok: bool
    advice: str = ""


def environment() -> list[Check]:
    """The environment table: one row for each thing the course needs, with what to do where it is not right."""
    needed = requirements()
    shown = ("torch", "transformers", "datasets", "accelerate", "ipywidgets", "matplotlib")
    return [
        check_python(),
        *[check_package(name, needed[name]) for name in shown],
        check_packages({name: ranges for name, ranges in needed.items() if name not in shown}),
        *[check_setting(name, read) for name, read in READERS.items()],
        *[Check(name, "unknown", False, advice) for name, advice in settings.unknown().items()],
        check_engine(),
        check_device(),
        check_memory(),
        check_disk(),
    ]


def requirements() -> dict[str, str]:
    """Each package of requirements.txt with its range, for instance {"torch": ">=2.10"}."""
    lines = packages.read_requirements(ROOT / "requirements.txt")
    return {name: line.removeprefix(name) for line in lines for name in [packages.name_of(line)]}


def check_python() -> Check:
    """Python itself: 3.11, 3.12 or 3.13."""
    ok = (3, 11) <= tuple(map(int, platform.python_version_tuple()[:2])) <= (3, 13)
    return Check("Python", platform.python_version(), ok, "" if ok else "use Python 3.11, 3.12 or 3.13")


def check_package(name: str, ranges: str) -> Check:
    """One installed package against its range; reads its metadata, imports nothing."""
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "missing", False, INSTALL)
    ok = packages.in_range(found, ranges)
    return Check(name, found, ok, "" if ok else f"wanted {ranges}: {INSTALL}")


def check_packages(needed: dict[str, str]) -> Check:
    """The packages that get no row of their own, in one."""
    wrong = [check for check in (check_package(*item) for item in needed.items()) if not check.ok]
    if not wrong:
        return Check("other packages", f"{len(needed)} found", True)
    advice = ", ".join(f"{check.name} ({check.found})" for check in wrong)
    return Check("other packages", f"{len(wrong)} not right", False, f"{advice}: {INSTALL}")


def check_engine() -> Check:
    """What does the reinforcement learning; trlX can be installed and yet not start."""
    try:
        from helpers import engine

        if engine.uses_trlx():
            import helpers.real_trlx.train  # noqa: F401
        return Check("engine", engine.describe(), True)
    except (ImportError, CourseError) as error:
        return Check("engine", "cannot start", False, str(error))


def check_setting(name: str, read: Callable[[], object]) -> Check:
    """One of the settings that `course.start` and the engine read, by the same function and with the same words."""
    found = settings.read(name)
    try:
        read()
    except CourseError as error:
        return Check(name, found or "not set", False, " ".join(str(error).split()))
    except ImportError:  # other rows say which package is missing
        pass
    return Check(name, found or "not set", True)


def read_scale() -> None:
    """What a start does for RLHF_SCALE: full scale without a folder of assets needs the hub, or what it gave earlier."""
    if settings.read_scale() == "full" and not settings.read("RLHF_ASSETS"):
        course.choose_scale()


def read_assets() -> None:
    """What a start does for RLHF_ASSETS, which tiny scale has no use for."""
    folder = None if settings.read("RLHF_SCALE") == "tiny" else settings.read_assets()
    if folder:
        assets.refuse_what_runs(folder)


def read_out() -> None:
    """What a start does for RLHF_OUT, without making the folder."""
    course.check_out(settings.read("RLHF_SCALE") or "tiny")


READERS = {
    "RLHF_SCALE": read_scale,
    "RLHF_ENGINE": settings.read_engine,
    "RLHF_ASSETS": read_assets,
    "RLHF_BUDGET": settings.read_budget,
    "RLHF_OUT": read_out,
    "RLHF_FIGURES": settings.read_figures,
}


def check_device() -> Check:
    """What the numbers are crunched on; a CPU is enough for tiny scale."""
    try:
        import torch
    except ImportError as error:
        return Check("device", "unknown", False, str(error))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        return Check("device", found, True)
    found = f"CPU, {os.cpu_count()} cores"
    return Check("device", found, True, "enough for tiny scale; full scale wants a GPU")


def check_memory(needed: float = 2) -> Check:
    """Main memory in GiB: tiny scale needs 2 free."""
    try:
        import psutil
    except ImportError as error:
        return Check("memory", "unknown", False, str(error))
    memory = psutil.virtual_memory()
    ok = memory.available >= needed * GIB
    found = f"{memory.available / GIB:.0f} of {memory.total / GIB:.0f} GiB free"
    return Check("memory", found, ok, "" if ok else f"close other programs: {needed} GiB should be free")


def check_disk(needed: float = 1) -> Check:
    """Disk space in GiB where results go: tiny scale needs 1."""
    free = files.free_space(results())
    ok = free >= needed * GIB
    advice = f"{needed} GiB is needed, 8 at full scale: free some space, or set RLHF_OUT to another disk"
    return Check("disk", f"{free / GIB:.0f} GiB free", ok, "" if ok else advice)
