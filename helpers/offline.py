"""Python packages in a folder, for machines without a network: `python -m helpers prefetch DIR --packages`.

For another platform pip alone would take the wrong ones: whether a requirement "only on Windows" counts, it judges by the machine
that it runs on. So requirements are followed here, and pip fetches a few packages at a time.
"""

import contextlib
import re
import shutil
import sys
import threading
import zipfile
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from subprocess import SubprocessError

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms, sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from helpers import files, packages
from helpers.course import ROOT
from helpers.errors import CourseError
from helpers.terminal import printable

SETS = ("requirements.txt", "tests/requirements.txt", "requirements-lab.txt")  # for make course, test and lab
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = "win_amd64, macosx_14_0_arm64, manylinux_2_28_x86_64 or manylinux_2_28_aarch64"
# bytes for all packages and pip's work on them: about 400 MB without NVIDIA's libraries (measured), 2.9 GB with
SPACE, CUDA_SPACE = 700_000_000, 4_000_000_000
AT_ONCE = 8  # packages that one call of pip fetches; where it is cut off, only these are fetched again
BROKEN_OFF = re.compile("timed out|IncompleteRead|Connection|broken|SSL", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """The machine that packages are for.

    Attributes:
        tags: the kinds of wheels that it takes.
        environment: what the conditions of requirements are judged by, such as {"sys_platform": "win32", ...}.
        pip: pip's command and options that fetch for it.
    """

    tags: frozenset[Tag]
    environment: dict[str, str]
    pip: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """A package in the folder."""

    path: Path
    version: Version
    requires: tuple[Requirement, ...]


def prefetch(folder: Path, platform: str | None = None, python: str | None = None) -> None:
    """Fill folder/packages with all that `make course`, `make lab` and `make test` install.

    Each package appears whole or not at all, so this can be stopped and run again.

    Args:
        platform: pip's tag of the machines that they are for, such as "win_amd64"; this machine's if None.
        python: its Python, such as "3.12"; the one that runs this if None.
    Raises:
        CourseError: platform or Python is none that the course knows, there is no pip, the folder cannot be written to or has
            too little space, or a package could not be fetched; those fetched so far are kept.
    """
    target = read_target(platform, python)
    if not find_spec("pip"):
        raise CourseError("There is no pip here to fetch packages with: python -m ensurepip brings it.")
    place = files.expand(folder).absolute() / "packages"
    files.check_folder(place)
    pins = {name: each.specifier for name, each in by_name(read_all(["constraints.txt"])).items()}
    check_space(place, SPACE, target)
    place.mkdir(parents=True, exist_ok=True)
    files.remove_left_over(place)
    found = follow(place, target, pins, read_all(SETS))
    size = sum(wheel.path.stat().st_size for wheel in found.values())
    print(f"\nComplete: {len(found)} packages, {size / 1e6:.0f} MB, in {place}")
    print(f"To install from there, with DIR for the folder that has packages in it: {how_to_install(target)}")


def read_all(names: Iterable[str]) -> list[Requirement]:
    """The requirements in these files of the course."""
    return [Requirement(line) for name in names for line in packages.read_requirements(ROOT / name)]


def by_name(requirements: Iterable[Requirement]) -> dict[str, Requirement]:
    """The requirements by the names of their packages, as the index spells them."""
    return {canonicalize_name(each.name): each for each in requirements}


def how_to_install(target: Target) -> str:
    """The command for a machine of that kind: on Windows there is no make."""
    if target.environment["sys_platform"] != "win32":
        return "make course FROM=DIR"
    sets = " ".join(f"-r {name}" for name in SETS)
    return f"python -m pip install --no-index --find-links DIR\\packages -c constraints.txt {sets}"


# The machine


def read_target(platform: str | None, python: str | None) -> Target:
    """The target that a person names.

    Raises:
        CourseError: it is none that the course knows.
    """
    if python not in (None, *PYTHONS):
        raise CourseError(
            f"--python-version is {python!r}: the course runs on Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}."
        )
    if not platform and not python:
        return Target(frozenset(sys_tags()), default_environment(), ("wheel", "--wheel-dir"))
    version = tuple(map(int, python.split("."))) if python else sys.version_info[:2]
    platforms, machine = read_platform(platform) if platform else (None, {})
    tags = [
        *cpython_tags(version, platforms=platforms),
        *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms),
    ]
    python = f"{version[0]}.{version[1]}"
    machine |= {"python_version": python, "python_full_version": f"{python}.0"}
    options = ("--only-binary=:all:", f"--python-version={python}")
    options += tuple(f"--platform={name}" for name in platforms or ())
    return Target(frozenset(tags), default_environment() | machine, ("download", *options, "--dest"))


def read_platform(tag: str) -> tuple[list[str], dict[str, str]]:
    """The platform tags that such a machine takes, best first, and its part of `Target.environment`.

    Raises:
        CourseError: it is none that the course knows.
    """
    system, _, rest = tag.partition("_")
    with contextlib.suppress(ValueError):
        if system == "win" and rest in ("amd64", "arm64"):
            return [tag], machine("nt", "win32", "Windows", rest.upper())
        major, minor, chip = rest.split("_", 2)
        if system == "macosx" and chip in ("arm64", "x86_64"):
            return [*mac_platforms((int(major), int(minor)), chip)], machine(
                "posix", "darwin", "Darwin", chip
            )
        if system == "manylinux" and major == "2" and chip in ("x86_64", "aarch64"):
            glibc = [f"manylinux_2_{number}_{chip}" for number in range(int(minor), 4, -1)]
            older = [f"{name}_{chip}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
            return [*glibc, *older], machine("posix", "linux", "Linux", chip)
    raise CourseError(f"--platform is {tag!r}: expected a platform tag of pip's, such as {PLATFORMS}.")


def machine(os_name: str, sys_platform: str, system: str, chip: str) -> dict[str, str]:
    """The part of `Target.environment` that a platform decides."""
    return {
        "os_name": os_name,
        "sys_platform": sys_platform,
        "platform_system": system,
        "platform_machine": chip,
    }


# The packages


def follow(
    place: Path, target: Target, pins: dict[str, SpecifierSet], wanted: Iterable[Requirement]
) -> dict[str, Wheel]:
    """Fetch into `place` what the requirements name, and what that requires in turn, where it is not there yet.

    Args:
        pins: for the packages named, the versions that may come.

    Returns:
        The wheels by the names of their packages, each within all ranges that were asked of it.

    Raises:
        CourseError: a package could not be fetched, or there is too little space.
    """
    found, ranges, extras = {}, defaultdict(SpecifierSet, pins), defaultdict(set)
    waiting = deque(each for each in wanted if counts(each, set(), target))
    missing = {}

    def take(name: str, wheel: Wheel) -> None:
        found[name] = wheel
        waiting.extend(each for each in wheel.requires if counts(each, extras[name], target))

    while waiting or missing:
        if len(missing) == AT_ONCE or not waiting:
            fetch(place, missing, target)
            for name, asked in missing.items():
                if not (wheel := find(place, name, asked, target)):
                    raise CourseError(
                        f"pip fetched {name}, and not for that machine: is one of pip's own settings in the way? `pip config list`"
                    )
                take(name, wheel)
            missing = {}
            continue
        requirement = waiting.popleft()
        name = canonicalize_name(requirement.name)
        ranges[name] &= requirement.specifier
        if name in found and fits(found[name].version, ranges[name]) and requirement.extras <= extras[name]:
            continue
        extras[name] |= requirement.extras
        if wheel := find(place, name, ranges[name], target):
            take(name, wheel)
        else:
            missing[name] = ranges[name]
    return found


def counts(requirement: Requirement, extras: set[str], target: Target) -> bool:
    """Whether a requirement counts on that machine, with the extras that its package was asked for with."""
    judged = [target.environment | {"extra": extra} for extra in ("", *extras)]
    return not requirement.marker or any(map(requirement.marker.evaluate, judged))


def fits(version: Version, ranges: SpecifierSet) -> bool:
    """Whether a version is in the ranges; 2.13.0+cpu is a 2.13.0."""
    return ranges.contains(version, prereleases=True)


def find(place: Path, name: str, ranges: SpecifierSet, target: Target) -> Wheel | None:
    """The newest wheel in the folder that such a machine takes. One that is damaged is renamed: it may be somebody's.

    Raises:
        CourseError: it could not be read, or not be renamed.
    """
    of_name = [(version, path) for found, version, path in wheels(place, target) if found == name]
    for version, path in sorted(of_name, reverse=True):
        if not fits(version, ranges):
            continue
        try:
            return Wheel(path, version, read_requires(path))
        except OSError as error:
            raise CourseError(f"{path} could not be read: {files.reason(error)}. It is as it was.") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError):
            aside = files.set_aside(path, "damaged")
            print(f"{path.name} is damaged. It is {aside.name} now.", flush=True)
    return None


def wheels(place: Path, target: Target) -> Iterator[tuple[str, Version, Path]]:
    """Name, version and path of every wheel in the folder that such a machine takes."""
    for path in place.glob("*.whl"):
        with contextlib.suppress(ValueError):  # no name of a wheel
            name, version, _, tags = parse_wheel_filename(path.name)
            if not target.tags.isdisjoint(tags):
                yield name, version, path


def read_requires(path: Path) -> tuple[Requirement, ...]:
    """What a wheel says that it requires."""
    with zipfile.ZipFile(path) as wheel:
        (name,) = [name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        said = Parser().parsestr(wheel.read(name).decode("utf-8"))
    return tuple(map(Requirement, said.get_all("Requires-Dist") or []))


def fetch(place: Path, wanted: dict[str, SpecifierSet], target: Target) -> None:
    """Fetch packages into the folder, by name and range; each appears whole or not at all.

    Raises:
        CourseError: pip could not fetch one, or it could not be written.
    """
    if any(name.startswith("nvidia-") for name in wanted):
        check_space(place, CUDA_SPACE, target)
    half = place / files.part_name()
    requirements = [f"{name}{ranges}" for name, ranges in wanted.items()]
    pip = (sys.executable, "-m", "pip", *target.pip, str(half), "--no-deps", "--no-input")
    print(f"{', '.join(wanted)} ...", flush=True)
    try:
        half.mkdir()
        with watched(half):
            packages.run(*pip, "--disable-pip-version-check", *requirements, env={"TMPDIR": str(half)})
        for came in half.glob("*.whl"):
            files.sync(came)
            came.replace(place / came.name)
    except (SubprocessError, OSError) as error:
        raise CourseError(
            f"{why(error)}. The packages fetched so far are kept: the same command goes on from there."
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def why(error: Exception) -> str:
    """Why pip could not fetch a package, in a sentence without its full stop."""
    said = (getattr(error, "stderr", None) or "").strip()
    last = said.split("\n")[-1]
    if "Retry(total=0" in said or ("Traceback" in said and BROKEN_OFF.search(last)):
        return "The package index does not answer, or broke off"
    if lacks := re.search(r"satisfies the requirement (.+) \(from versions: (.+)\)", said):
        package = printable(lacks[1])
        if lacks[2] == "none":  # what pip says where it had no answer, too
            return f"The package index has no {package} for this platform and Python, or it does not answer"
        return f"The package index has no {package} for this platform and Python, only other versions"
    if clash := re.search(
        r"Cannot install (.+?) because", said
    ):  # where a constraint of the reader's is there as well
        package = printable(clash[1]).replace(" and ", ",")
        return f"pip found no {package} for this platform and Python that fits its own settings too (`pip config list`)"
    return f"pip could not fetch packages: {packages.reason(error).rstrip('.')}"


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[None]:
    """While the block runs, show on a terminal how much is in the folder."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            print(f"\r{size_of(folder) / 1e6:.0f} MB", end="", flush=True)
        print(f"\r{' ' * 20}\r", end="", flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    if sys.stdout.isatty():
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if watcher.is_alive():
            watcher.join()


def size_of(folder: Path) -> int:
    """Bytes in a folder in which files come and go."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size


def check_space(place: Path, needed: int, target: Target) -> None:
    """Refuse a disk that is too small for what is still to come.

    Raises:
        CourseError: less is free than `needed`, of which the packages for that machine that are there are a part.
    """
    there = sum(path.stat().st_size for _, _, path in wheels(place, target))
    files.check_space(place, max(0, needed - there), "choose another folder")
