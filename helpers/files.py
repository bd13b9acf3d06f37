"""Files and folders that appear whole or not at all, in places where a reader may keep files too.

Nothing that the course did not write is replaced or removed. A folder that exists is changed file by file: the new files are
written to a hidden folder inside it, that folder is renamed to NEW, from which moment on they count as saved, and then each
is renamed to its place. Files that the save does not name are never touched. Where a rename fails, what was replaced comes
back from OLD. Where the process is killed between two renames, NEW is still there, and `settle` goes on from it: whoever
reads or writes such a folder calls it first.
"""

import contextlib
import errno
import filecmp
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from helpers.errors import CourseError

NEW, OLD = ".course-new", ".course-old"  # inside a folder whose files are being replaced
PART = re.compile(r"\.course-(?P<host>\w+)-(?P<process>\d+)-[0-9a-f]{8}\.part$")
DAY = 24 * 3600

# what file systems answer that cannot do a thing: network drives, Drive's mount, some containers
UNABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def expand(path: str | Path) -> Path:
    """A path as a person gives it: `~` is the home folder, `~name` that of another user where there is one."""
    return Path(os.path.expanduser(path))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all. Where `path` is a link, the file it leads to is written.

    Raises:
        CourseError: the disk is full or the folder cannot be written to; the file stays as it was.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".{place.name}{part_name()}")
    remove_left_over(place)
    try:
        # half of a surrogate pair, as a cut emoji leaves, has no UTF-8: it is written as an escape
        with open(temporary, "x", encoding="utf-8", newline="\n", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            sync(file.fileno())
        if place.exists():
            shutil.copymode(place, temporary)
        os.replace(temporary, place)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise CourseError(
            f"{path} could not be written: {reason(error)}. It is as it was. Free some space, allow writing there, or choose another folder (of results: RLHF_OUT)."
        ) from error


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Write the files that `write(empty folder)` makes into `folder`, all of them or none; other files there stay.

    Raises:
        CourseError: the folder cannot take them, or they could not be written; what was there is there as it was.
    """
    folder = Path(folder)
    check_folder(folder)
    try:
        with locked(folder, beside=False):
            remove_left_over(folder)
            finish(folder)
            existed = folder.exists()
            staging = folder / part_name() if existed else folder.with_name(f".{folder.name}{part_name()}")
            staging.mkdir(parents=True)
            try:
                write(staging)
                names = files_in(staging)
                for name in names:
                    sync(staging / name)
                if existed:
                    refuse_in_the_way(folder, names)
                    drop_alike(folder, staging, names)
                    os.rename(staging, folder / NEW)  # from here on the new files are saved
                    finish(folder)
                else:
                    os.rename(staging, folder)
                sync(folder.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except CourseError:
        raise
    except Exception as error:  # safetensors and tokenizers have kinds of their own for a full disk
        raise CourseError(
            f"{folder} could not be written: {reason(error)}. What was there is as it was. Is the disk full? Free some space, or choose another folder."
        ) from error
    return folder


def settle(folder: str | Path) -> None:
    """Finish a save to `folder` that was killed half-way, if there was one. Call this before you read the folder.

    Raises:
        CourseError: a file could not be replaced; the folder is as it was before that save.
    """
    folder = Path(folder)
    if (folder / NEW).is_dir():
        with locked(folder, beside=False):
            finish(folder)


def drop_alike(folder: Path, staging: Path, names: list[Path]) -> None:
    """Drop the staged files that are there already, byte for byte: the fewer files are replaced, the better."""
    for name in names:
        if (folder / name).is_file() and filecmp.cmp(staging / name, folder / name, shallow=False):
            (staging / name).unlink()


def finish(folder: Path) -> None:
    """Put what waits in `folder`/NEW into its place; errors as in `settle`. The folder is `locked`."""
    new, old = folder / NEW, folder / OLD
    if not new.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        return
    placed: list[Path] = []
    try:
        for name in files_in(new):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            keep(folder / name, old / name)
            os.replace(new / name, folder / name)
            placed.append(name)
    except OSError as error:
        bring_back(folder, placed)
        raise CourseError(
            f"{folder} could not be written: {reason(error)}. Its files are as they were. Does another program hold one open?"
        ) from error
    sync(folder)
    # OLD first: without NEW, what is in it would be taken for what a later save replaces
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)


def bring_back(folder: Path, placed: list[Path]) -> None:
    """Undo `placed` from OLD, and drop NEW."""
    new, old = folder / NEW, folder / OLD
    for name in placed:
        if (old / name).exists():
            os.replace(old / name, folder / name)
        else:
            (folder / name).unlink()
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)


def files_in(folder: Path) -> list[Path]:
    """The files in a folder and its folders, by their paths in it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def keep(path: Path, second: Path) -> None:
    """Give a file a second name, where it exists; a copy where the file system has no such names."""
    if not path.exists() or second.exists():
        return
    second.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, second)
    except OSError:
        half = second.with_name(f"{second.name}{part_name()}")
        shutil.copy2(path, half)
        os.replace(half, second)


def check_folder(folder: str | Path, names: Iterable[str | Path] = ()) -> None:
    """Refuse, before any time is spent, a folder that `write_folder` could not write `names` into.

    Raises:
        CourseError: it is a link or a file, it holds the folder one is in, something in it is in the way, or it may not be
            written to.
    """
    folder = Path(folder)
    here = Path.cwd()
    if not folder.name or here.is_relative_to(folder.resolve()):
        raise CourseError(
            f"{folder} is the folder you are in, or above it: name a folder for the files alone."
        )
    if folder.is_symlink():
        raise CourseError(
            f"{folder} is a link to {os.readlink(folder)}: name a folder itself, or one that is not there yet."
        )
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise CourseError(
            f"{place} is no folder, so {folder} cannot be one: choose another, or move what is there."
        )
    probe = place / part_name()
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise CourseError(
            f"{folder} cannot be written to: {reason(error)}. Choose another folder."
        ) from error
    refuse_in_the_way(folder, names)


def refuse_in_the_way(folder: Path, names: Iterable[str | Path]) -> None:
    """Refuse a folder in which one of these files has a place that is neither free nor a plain file's.

    Raises:
        CourseError: names what is in the way.
    """
    for name in map(Path, names):
        for part in [*reversed(name.parents[:-1]), name]:
            path, wanted = folder / part, "file" if part == name else "folder"
            fits = path.is_file() if part == name else path.is_dir()
            if os.path.lexists(path) and (path.is_symlink() or not fits):
                raise CourseError(
                    f"{path} is in the way: a {wanted} of that name is to be written there, and this is none. Choose another folder."
                )


def set_aside(path: Path, word: str = "old") -> Path:
    """Rename a file or folder to its `free_name`, and return that.

    Raises:
        CourseError: it could not be renamed, as on Windows while a program has it open.
    """
    aside = free_name(path, word)
    try:
        os.rename(path, aside)
    except OSError as error:
        raise CourseError(
            f"{path} could not be renamed to {aside.name}: {reason(error)}. It is as it was. Does another program hold it open?"
        ) from error
    return aside


def free_name(path: Path, word: str) -> Path:
    """The first path beside this one, such as `name.old-1`, at which there is nothing."""
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.name}.{word}-{number}")):
        number += 1
    return free


def check_space(folder: str | Path, needed: int, advice: str) -> None:
    """Refuse, before the work, a disk that could not take what is to be saved after it.

    Args:
        needed: in bytes.
        advice: what to do, as the end of the message.
    Raises:
        CourseError: less is free where `folder` is, or will be.
    """
    free = free_space(folder)
    if free < needed:
        raise CourseError(
            f"saving to {folder} needs about {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free. Free some space, or {advice}."
        )


def free_space(folder: str | Path) -> int:
    """Free bytes on the disk where `folder` is, or will be."""
    place = Path(folder).absolute()
    while not os.path.exists(place):  # False too where the name is too long
        place = place.parent
    return shutil.disk_usage(place).free


@contextlib.contextmanager
def locked(path: Path, beside: bool = True, seconds: float = 60):
    """While the block runs, this process alone works on the file or folder at `path`; others that ask wait.

    The lock file lies beside it and stays; else among the temporary files, where it holds for one user of one machine.

    Yields:
        Whether the lock is held; on a drive without locks it is not.
    Raises:
        CourseError: another process kept it for `seconds`.
    """
    from filelock import FileLock, Timeout  # here, so that the doctor can say where it is missing

    name = path.with_name(f".{path.name}.lock")
    if not beside:
        known_by = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
        user = os.getuid() if hasattr(os, "getuid") else ""  # Windows has temporary files for each user
        name = Path(tempfile.gettempdir()) / f"rlhf-course-{user}-{known_by}.lock"
    # every user of a shared folder may take it; asked for often, or who waits would lose most turns
    lock = FileLock(name, timeout=seconds, mode=0o666, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout:
        raise CourseError(
            f"{path} has been in use by another program for {seconds:.0f} seconds. Close it, or shut down its kernel, and try again."
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNABLE:
            raise
        yield False  # better unlocked than not saved
        return
    try:
        yield True
    finally:
        lock.release()


def sync(file: int | Path) -> None:
    """Wait until the disk holds a file or folder. Some file systems cannot promise it, and Windows cannot for folders."""
    handle = file
    if isinstance(file, Path):
        if os.name == "nt" and file.is_dir():
            return
        # Windows takes only handles that may write
        handle = os.open(file, os.O_RDONLY if file.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    finally:
        if handle is not file:
            os.close(handle)


def part_name() -> str:
    """The end of a name for what is not whole yet; no two are alike, and each tells whose it is."""
    return f".course-{this_host()}-{os.getpid()}-{secrets.token_hex(4)}.part"


def this_host() -> str:
    """This machine's name, in letters, digits and _."""
    return re.sub(r"\W", "", socket.gethostname()) or "host"


def remove_left_over(place: Path) -> None:
    """Remove what saves to a file or folder left that were killed: by a process of this machine that is gone, or a day ago."""
    inside = place.glob(".course-*.part") if place.is_dir() else []
    beside = (path for path in place.parent.glob(".*.part") if path.name.startswith(f".{place.name}.course-"))
    for path in [*inside, *beside]:
        found = PART.search(path.name)
        if not found or path.is_symlink():
            continue
        import psutil  # only where something was left: not every environment has it

        gone = found["host"] == this_host() and not psutil.pid_exists(int(found["process"]))
        with contextlib.suppress(OSError):
            if gone or time.time() - path.stat().st_mtime > DAY:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def reason(error: Exception) -> str:
    """What went wrong, in a line of bounded length."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
