"""The settings that the environment gives: RLHF_SCALE, RLHF_ENGINE, RLHF_ASSETS, RLHF_BUDGET, RLHF_OUT, RLHF_FIGURES.
An empty one counts as unset.

This is the one place that reads them: `course.start` and the engine take what it finds, and `python -m helpers doctor` shows it.
"""

import difflib
import math
import os
import warnings
from pathlib import Path

from helpers import assets, files
from helpers.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent

NAMES = ("RLHF_SCALE", "RLHF_ENGINE", "RLHF_ASSETS", "RLHF_BUDGET", "RLHF_OUT", "RLHF_FIGURES")
FIGURES = ("projector", "described")


_defaults: dict[str, str] = {}  # what set_defaults has put into the environment


def set_defaults(scale: str, engine: str) -> None:
    """Set RLHF_SCALE and RLHF_ENGINE for this session to what a notebook's Setup cell says, where the environment says nothing.

    Run again with other values it changes what it set itself. An empty value lets the course choose.
    """
    for name, value in (("RLHF_SCALE", scale), ("RLHF_ENGINE", engine)):
        if os.environ.get(name, "") in ("", _defaults.get(name)):
            os.environ[name] = _defaults[name] = value


def read(name: str) -> str | None:
    """A setting as it was given; None where it is not set, or empty."""
    return os.environ.get(name) or None


def read_scale() -> str | None:
    """RLHF_SCALE: "tiny" or "full"; None lets the course choose.

    Raises:
        CourseError: it is something else.
    """
    asked = read("RLHF_SCALE")
    if asked not in (None, "tiny", "full"):
        raise CourseError(
            f"RLHF_SCALE is {asked!r:.60}: expected tiny or full. Leave it unset to let the course choose."
        )
    return asked


def read_engine() -> str:
    """RLHF_ENGINE: "auto" where it is not set, "trlx" or "builtin".

    Raises:
        CourseError: it is something else.
    """
    asked = read("RLHF_ENGINE") or "auto"
    if asked not in ("auto", "trlx", "builtin"):
        raise CourseError(f"RLHF_ENGINE is {asked!r:.60}: expected auto, trlx or builtin")
    return asked


def read_assets() -> Path | None:
    """RLHF_ASSETS: the folder that stands in for the hub, when every part is there; None where it is not set.

    Raises:
        CourseError: names what is missing.
    """
    folder = read("RLHF_ASSETS")
    return assets.check_assets(from_root(folder)) if folder else None


def read_budget() -> float:
    """RLHF_BUDGET: the fraction of the training to do, 1 where it is not set.

    Raises:
        CourseError: it is no number above 0.
    """
    text = read("RLHF_BUDGET") or "1"
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not (0 < budget < math.inf):
        raise CourseError(
            f"RLHF_BUDGET is {text!r:.60}: expected a number above 0, such as 0.1 for a tenth of the training. "
            "Leave it unset for all of it."
        )
    return budget


def read_out() -> Path | None:
    """RLHF_OUT: the folder for results; None where it is not set."""
    folder = read("RLHF_OUT")
    return from_root(folder) if folder else None


def read_figures() -> set[str]:
    """RLHF_FIGURES: some of "projector" and "described", with commas between them; none where it is not set.

    Raises:
        CourseError: it names something else.
    """
    asked = {word.strip() for word in (read("RLHF_FIGURES") or "").split(",")} - {""}
    if not asked <= set(FIGURES):
        raise CourseError(
            f"RLHF_FIGURES is {os.environ['RLHF_FIGURES']!r:.60}: expected projector (large type, for a room), described (each "
            "figure's description in words below it), or projector,described"
        )
    return asked


def from_root(path: str | Path) -> Path:
    """A path out of a setting. A relative one counts from the course's top folder, for notebooks and commands alike."""
    return Path(os.path.normpath(ROOT / files.expand(path)))


def unknown() -> dict[str, str]:
    """What is set and looks like a setting of the course, but is none, each with what to do."""
    found = {}
    for name in sorted(os.environ):
        if name.upper().startswith("RLHF_") and name not in NAMES:
            ends = [known.removeprefix("RLHF_") for known in NAMES]
            near = difflib.get_close_matches(name.upper().removeprefix("RLHF_"), ends, 1)
            meant = f"Did you mean RLHF_{near[0]}?" if near else f"The settings are {', '.join(NAMES)}."
            found[name] = f"{name} is no setting of the course, and has no effect. {meant}"
    return found


def tell_of_unknown() -> None:
    """Warn of settings that have no effect."""
    for advice in unknown().values():
        warnings.warn(advice, stacklevel=3)
