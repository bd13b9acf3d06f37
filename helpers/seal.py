"""Pages that the course writes for a reader carry a seal, so that a page that somebody edited is never replaced."""

import hashlib
from pathlib import Path

from helpers.errors import CourseError

SEAL = "<!-- Written by the RLHF course. Where this is edited, the course leaves the file alone: {} -->\n"


def sealed(text: str) -> str:
    """A text with a last line by which `check_own` knows that the course wrote all of it."""
    return text + SEAL.format(digest_of(text.encode("utf-8", "backslashreplace")))


def digest_of(data: bytes) -> str:
    """A short digest of what stands in a file."""
    return hashlib.sha256(data).hexdigest()[:16]


def check_own(path: Path) -> None:
    """Check that writing to `path` replaces nothing but what `sealed` made; call it before the work whose result goes there.

    Raises:
        CourseError: something else is there, or someone edited it.
    """
    if not path.exists():
        return
    data = path.read_bytes() if path.is_file() else b""
    text, start, seal = data.rpartition(SEAL[:16].encode())
    if start + seal != SEAL.format(digest_of(text)).encode():
        raise CourseError(
            f"{path} is there and is not as the course wrote it, so it is left as it is: move it away, or choose another place."
        )
