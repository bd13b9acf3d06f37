"""The real Makefile in an empty course, with stand-ins for Python: what it takes, what it makes, and what it leaves alone."""

import fcntl
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from common import ROOT

from helpers.__main__ import main

MARK = ".made-by-make"
# Answers as far as make asks: is the version right, `-m venv FOLDER`, and in that environment `-m pip` and the rest. It
# notes its arguments, and those variables that tests look at.
PYTHON = f"""\
#!/bin/sh
case "$1 $2" in
  ".ci/quietly.py "*) exec {shlex.quote(sys.executable)} "$@";;
  ".ci/cpu_torch.py "*) [ ! -e cpu ] || echo --extra-index-url=there;;
  "-m venv") [ -f "$3/.made-by-make" ] && echo "venv $3, marked" >> calls || echo "venv $3" >> calls
             [ ! -e fail ] || exit 1
             mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
  "-m pip") [ ! -e read ] || read answer || echo "nobody to ask"
            [ ! -e sleep ] || {{ echo Collecting torch of a long name and a longer one; sleep 1000; }}
            echo "pip${{PIP_TARGET:+ into $PIP_TARGET}}" >> calls
            for word; do case "$word" in --no-index | --find-links=* | --extra-index-url=*) printf '<%s>' "$word";; esac; done >> offline
            for line in $(seq 1 50); do echo "pip says $line"; done
            [ ! -e pip-fails ] || {{ printf 'no such package \\033[31m\\n' >&2; exit 3; }};;
  "-m helpers") for word; do printf '<%s>' "$word" >> calls; done; echo >> calls;;
  "-m jupyter") for word; do printf '<%s>' "$word" >> calls; done; echo >> calls;;
  "-c import sysconfig"*) echo .;;
esac
"""
ENVIRONMENTS = {
    ".venv": "course",
    ".venv-widgets": "test-widgets",
    ".venv-classic": "test-browser",
    ".venv-site": "site",
}


@pytest.fixture
def folder(tmp_path):
    """A course without anything but what make itself reads."""
    course = tmp_path / "the course"  # in a folder with a space in its name
    for file in (
        "Makefile",
        "tests/requirements.txt",
        "tests/widgets/requirements.txt",
        "requirements.txt",
        "requirements-lab.txt",
        "requirements-site.txt",
        "constraints.txt",
        ".ci/quietly.py",
    ):
        (course / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, course / file)
    (course / "tests" / "browser").mkdir()
    for file in ("requirements.txt", "requirements-classic.txt"):
        shutil.copy(ROOT / "tests" / "browser" / file, course / "tests" / "browser")
    for name in ("helpers", "notebooks"):
        (course / name).mkdir()
    (course / "python").write_text(PYTHON)
    (course / "python").chmod(0o755)
    return course


@pytest.fixture
def make(folder):
    """The real make in that folder, with extra environment variables by keyword; none of whoever runs the tests."""

    def call(*arguments, **env):
        env = nobodys() | env
        return subprocess.run(
            ["make", *arguments],
            cwd=folder,
            env=env,
            input="an answer\n",
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def nobodys() -> dict[str, str]:
    """The environment, without what concerns make."""
    unasked = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "PYTHON",
        "REPO",
        "BRANCH",
        "SCALE",
        "ENGINE",
        "COLAB",
        "FROM",
        "LAB_ARGS",
    )
    return {name: value for name, value in os.environ.items() if name not in unasked}


def calls(folder) -> list[str]:
    """What the stand-ins were asked, so far."""
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def made(make, target="course"):
    """Run a target that makes an environment, with the stand-in for Python."""
    return make("PYTHON=./python", target)


# What is taken from a reader


@pytest.fixture
def published(folder, make):
    """What reaches `python -m helpers publish`, and what make said."""
    made(make)
    (folder / "calls").unlink()

    def call(*arguments, **env):
        result = make("publish", *arguments, **env)
        return (calls(folder) or [None])[-1], result

    return call


HOSTILE = [
    "x'; touch marker; '",
    'x"; touch marker; "',
    "$(shell touch marker)",
    "$$(touch marker)",
    "`touch marker`",
    "a b  c ",
    "a\\",
    "$HOME ${HOME} $(HOME)",
    "*",
    "# , ) (",
    "a\ntouch marker",
    "-x",
    "--unpublish",
    "ü\u202e",
]


PUBLISH = "<-m><helpers><publish>"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reaches_publish_as_one_argument_and_runs_nothing(folder, published, value):
    before = set(folder.iterdir())
    for given, expected in [
        ((f"REPO={value}",), f"{PUBLISH}<--branch=main><--scale=><--engine=><--><{value}>"),
        ((f"BRANCH={value}",), f"{PUBLISH}<--branch={value}><--scale=><--engine=><--><>"),
        ((f"SCALE={value}",), f"{PUBLISH}<--branch=main><--scale={value}><--engine=><--><>"),
        ((f"ENGINE={value}",), f"{PUBLISH}<--branch=main><--scale=><--engine={value}><--><>"),
    ]:
        (folder / "calls").unlink(missing_ok=True)
        _, result = published(*given)
        assert result.returncode == 0, result.stderr
        assert (folder / "calls").read_text() == expected + "\n"
    assert set(folder.iterdir()) - before == {folder / "calls"}


@pytest.mark.parametrize("value", HOSTILE)
def test_and_publish_refuses_it_in_words(capsys, value):
    for arguments, message in [
        (["--", value], "is not a GitHub repository: expected owner/name"),
        ([f"--branch={value}", "--", "o/n"], "is not a branch: expected letters"),
        ([f"--scale={value}", "--", "o/n"], "is not a scale: expected tiny or full"),
        ([f"--engine={value}", "--", "o/n"], "is not an engine: expected trlx or builtin"),
    ]:
        assert main(["publish", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", HOSTILE)
def test_so_does_the_name_of_colabs_list(folder, make, value):
    made(make)
    for target, rest in [("drift", ""), ("test-colab", "<--><.venv-colab>")]:
        (folder / "calls").unlink()
        before = set(folder.iterdir()) | {folder / "calls", folder / ".venv-colab"}
        result = make(target, f"COLAB={value}", COLAB="theirs")
        assert result.returncode == 0, result.stderr
        assert (folder / "calls").read_text() == f"<-m><helpers><{target}><--list={value}>{rest}\n"
        assert set(folder.iterdir()) <= before


def test_publish_takes_nothing_from_the_environment(published):
    theirs = {"REPO": "someone/else", "BRANCH": "their-branch", "SCALE": "full", "ENGINE": "trlx"}
    call, _ = published(**theirs)
    assert call == f"{PUBLISH}<--branch=main><--scale=><--engine=><--><>"
    call, _ = published("REPO=o/n", **theirs)
    assert call == f"{PUBLISH}<--branch=main><--scale=><--engine=><--><o/n>"
    call, _ = published("REPO=o/n", "BRANCH=stable", "SCALE=tiny", "ENGINE=builtin", **theirs)
    assert call == f"{PUBLISH}<--branch=stable><--scale=tiny><--engine=builtin><--><o/n>"


def test_nor_does_any_other_target(folder, make):
    """CI servers set PYTHON to a version; a reader's shell may hold any of these for another project."""
    made(make)
    result = make("lab", LAB_ARGS="; touch marker;", MAKECMDGOALS='"; touch marker; "')
    assert calls(folder)[-1] == "<-m><jupyter><lab><notebooks/01_install.ipynb>", result.stderr
    make("lab", "LAB_ARGS=--port=9999 --no-browser")
    assert calls(folder)[-1] == "<-m><jupyter><lab><--port=9999><--no-browser><notebooks/01_install.ipynb>"
    shutil.rmtree(folder / ".venv")
    said = make("-n", "course", PYTHON="3.13", MAKECMDGOALS='"; touch marker; "')
    assert "python3 -m venv" in said.stdout and "touch marker" not in said.stdout
    assert not (folder / "marker").exists()


def test_everything_is_installed_into_the_environment_and_nowhere_else(folder, make):
    result = make("PYTHON=./python", "course", PIP_TARGET="elsewhere", PIP_PREFIX="elsewhere")
    assert result.returncode == 0, result.stderr
    assert "pip" in calls(folder) and not any("elsewhere" in call for call in calls(folder))


# A folder in place of a network


def stick(place):
    """A folder as `python -m helpers prefetch DIR --packages` fills it, as far as make looks."""
    (place / "packages").mkdir(parents=True)
    (place / "packages" / "torch-2.13.0-py3-none-any.whl").touch()
    return place


def offline(folder):
    """What pip was told about where packages come from, at each call."""
    return (folder / "offline").read_text() if (folder / "offline").exists() else ""


@pytest.mark.parametrize("target", ["course", "lab", "test"])
def test_packages_come_from_a_folder_and_from_nowhere_else(folder, make, target):
    place = stick(folder.parent / "a stick")
    result = make("PYTHON=./python", target, f"FROM={place}")
    assert result.returncode == 0, result.stderr
    times = 2 if target == "lab" else 1
    assert offline(folder) == f"<--no-index><--find-links={place}/packages>" * times


def test_without_a_folder_nothing_is_different(folder, make):
    made(make)
    assert (
        make("lab", FROM=str(stick(folder.parent / "theirs"))).returncode == 0
    )  # the environment's does not count
    assert "pip" in calls(folder) and not offline(folder)


def test_the_home_folder_is_meant_by_its_sign(folder, make, tmp_path):
    stick(tmp_path / "home" / "s t i c k")
    result = make("PYTHON=./python", "course", "FROM=~/s t i c k", HOME=str(tmp_path / "home"))
    assert result.returncode == 0, result.stdout
    assert offline(folder) == f"<--no-index><--find-links={tmp_path}/home/s t i c k/packages>"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_folder_of_any_name_is_one_argument_and_runs_nothing(folder, make, value):
    stick(folder / value)
    before = set(folder.iterdir())
    result = make("PYTHON=./python", "course", f"FROM={value}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert offline(folder) == f"<--no-index><--find-links={value}/packages>"
    assert set(folder.iterdir()) - before == {folder / name for name in ("calls", "offline", ".venv")}


@pytest.mark.parametrize("value", [*HOSTILE, "~", "~/nowhere", "~root", "empty", "models"])
@pytest.mark.parametrize("name, target", ENVIRONMENTS.items())
def test_a_folder_without_packages_is_refused_before_anything_is_made(
    folder, make, tmp_path, name, target, value
):
    (folder / "empty" / "packages").mkdir(parents=True)
    (folder / "models" / "gpt2").mkdir(parents=True)
    before = all_there(folder)
    result = make("PYTHON=./python", target, f"FROM={value}", HOME=str(tmp_path))
    assert result.returncode != 0
    (said,) = result.stdout.splitlines()
    assert said.startswith("FROM=") and said.endswith(
        "`python -m helpers prefetch DIR --packages` fills a folder DIR."
    )
    assert all_there(folder) == before


def test_torch_may_come_from_an_index_of_its_own(folder, make):
    (folder / "cpu").touch()
    assert made(make).returncode == 0
    assert offline(folder) == "<--extra-index-url=there>"


# Environments


def test_an_environment_is_marked_before_anything_is_in_it(folder, make):
    result = made(make)
    assert result.returncode == 0, result.stderr
    assert calls(folder) == ["venv .venv, marked", "pip", "<-m><helpers><run>"]
    assert (folder / ".venv" / MARK).is_file() and (folder / ".venv" / ".ready").is_file()
    made(make)
    assert calls(folder)[3:] == ["<-m><helpers><run>"]  # nothing is made or installed again


@pytest.mark.parametrize("name, target", ENVIRONMENTS.items())
def test_a_half_made_one_is_made_again(folder, make, name, target):
    if name == ".venv-classic":
        made(make)
    (folder / name).mkdir(exist_ok=True)
    (folder / name / MARK).touch()
    (folder / name / "half").touch()
    made(make, target)
    assert f"venv {name}, marked" in calls(folder)
    assert not (folder / name / "half").exists()


@pytest.mark.parametrize("what", ["fail", "pip-fails"])
def test_one_that_fails_is_made_again(folder, make, what):
    (folder / what).touch()
    assert made(make).returncode != 0
    (folder / what).unlink()
    assert made(make).returncode == 0
    assert calls(folder).count("venv .venv, marked") == 2


def test_one_from_before_there_was_a_mark_is_used_and_updated(folder, make):
    made(make)
    (folder / ".venv" / MARK).unlink()
    (folder / ".venv" / "mine").touch()
    os.utime(folder / ".venv" / ".ready", (0, 0))  # requirements.txt is newer
    (folder / "calls").unlink()
    assert made(make).returncode == 0
    assert calls(folder) == ["pip", "<-m><helpers><run>"] and (folder / ".venv" / "mine").exists()


def readers_environment(place):
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text("#!/bin/sh\necho used >> calls\n")
    (place / "bin" / "python").chmod(0o755)
    (place / "pyvenv.cfg").write_text("home = /usr/bin\n")


def readers_link(place):
    readers_environment(place.parent / "elsewhere")
    place.symlink_to("elsewhere")


def readers_link_to_a_marked_one(place):
    readers_link(place)
    (place / MARK).touch()


def readers_link_to_an_empty_folder(place):
    (place.parent / "elsewhere").mkdir()
    place.symlink_to("elsewhere")


def readers_link_to_nothing(place):
    place.symlink_to("nowhere")


def readers_file(place):
    place.write_text("notes")


READERS = [
    readers_environment,
    readers_link,
    readers_link_to_a_marked_one,
    readers_link_to_an_empty_folder,
    readers_link_to_nothing,
    readers_file,
]


def all_there(folder):
    """Every file and link under a folder, with what is in it."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("readers", READERS)
@pytest.mark.parametrize("name, target", ENVIRONMENTS.items())
def test_what_make_did_not_make_stays_and_make_says_what_to_do(folder, make, name, target, readers):
    if name == ".venv-classic":
        made(make)
        (folder / ".venv" / ".lab").touch()
        (folder / ".venv" / ".browser").touch()
    readers(folder / name)
    before = all_there(folder)
    result = made(make, target)
    assert result.returncode != 0
    assert f"{name} is here and make did not make it, so make leaves it alone" in result.stdout
    assert f"mv {name} {name}-mine" in result.stdout
    assert all_there(folder) == before

    (folder / name).rename(folder / f"{name}-mine")
    made(make, target)
    assert f"venv {name}, marked" in calls(folder)


@pytest.mark.parametrize("readers", READERS)
def test_nor_does_test_colab_touch_what_make_did_not_make(folder, make, readers):
    made(make)
    (folder / "calls").unlink()
    readers(folder / ".venv-colab")
    before = all_there(folder)
    result = make("test-colab")
    assert result.returncode != 0
    assert ".venv-colab is here and make did not make it, so make leaves it alone" in result.stdout
    assert all_there(folder) == before


def test_each_test_colab_begins_with_an_empty_folder(folder, make):
    made(make)
    for _ in range(2):
        assert make("test-colab").returncode == 0
        assert calls(folder)[-1] == "<-m><helpers><test-colab><--list=><--><.venv-colab>"
        assert [path.name for path in (folder / ".venv-colab").iterdir()] == [MARK]
        (folder / ".venv-colab" / "oldest").mkdir()


def test_an_empty_folder_is_no_loss(folder, make):
    (folder / ".venv").mkdir()
    assert made(make).returncode == 0
    assert (folder / ".venv" / MARK).is_file()


def test_a_link_to_a_whole_one_of_ours_is_used(folder, make):
    """Moved to a larger disk, perhaps; only made again or deleted it is not."""
    made(make)
    (folder / ".venv").rename(folder / "elsewhere")
    (folder / ".venv").symlink_to("elsewhere")
    os.utime(folder / ".venv" / ".ready", (0, 0))
    (folder / "calls").unlink()
    assert made(make).returncode == 0
    assert calls(folder) == ["pip", "<-m><helpers><run>"]
    assert "so it stays" in make("clean").stdout
    assert (folder / ".venv").is_symlink() and (folder / "elsewhere" / ".ready").is_file()


@pytest.mark.parametrize("readers", READERS)
@pytest.mark.parametrize("name", [*ENVIRONMENTS, ".venv-colab"])
def test_clean_leaves_what_make_did_not_make(folder, make, name, readers):
    readers(folder / name)
    before = all_there(folder)
    result = make("clean")
    assert result.returncode == 0 and result.stdout == f"{name} is not from make, so it stays.\n"
    assert all_there(folder) == before


def test_clean_deletes_what_make_made_and_caches(folder, make):
    made(make)
    made(make, "test-widgets")
    made(make, "test-browser")
    made(make, "test-colab")
    made(make, "site")
    caches = [".pytest_cache/v", ".ruff_cache/0", "helpers/__pycache__", "tests/browser/__pycache__"]
    readers = ["mine/.venv/__pycache__", ".git/__pycache__", "out/tiny/tuned", "notebooks/.ipynb_checkpoints"]
    for name in (*caches, *readers):
        (folder / name).mkdir(parents=True)
    result = make("clean")
    assert result.returncode == 0 and not result.stdout
    assert not any((folder / name).exists() for name in (*ENVIRONMENTS, ".venv-colab", *caches))
    assert not (folder / ".pytest_cache").exists()
    assert all((folder / name).exists() for name in readers)


# What installing says


def test_installing_takes_two_lines_in_a_log(folder, make):
    result = made(make)
    assert result.returncode == 0 and not result.stderr
    begins, ends = result.stdout.splitlines()
    assert begins == "Installing the course into .venv ..."
    assert re.fullmatch(re.escape(begins.removesuffix(" ...")) + r": done in 0:\d\d\.", ends)
    assert "pip says 50" in (folder / ".venv" / "install.log").read_text()


@pytest.mark.parametrize("name, target", ENVIRONMENTS.items())
def test_pips_own_words_come_where_it_fails(folder, make, name, target):
    if name == ".venv-classic":
        made(make)
        (folder / ".venv" / ".lab").touch()
        (folder / ".venv" / ".browser").touch()
    (folder / "pip-fails").touch()
    result = made(make, target)
    assert result.returncode != 0
    said, (where,) = result.stdout, re.findall("All of it is in (.*)\\.$", result.stdout, re.MULTILINE)
    assert "pip says 21\n" not in said and "pip says 22\n" in said and "no such package" in said
    assert "\x1b" not in said and "no such package" in (folder / where).read_text()
    assert where == f"{name}/install.log" and "pip says 1\n" in (folder / where).read_text()


def test_nothing_waits_for_an_answer(folder, make):
    (folder / "read").touch()
    assert made(make).returncode == 0
    assert "nobody to ask" in (folder / ".venv" / "install.log").read_text()


@pytest.fixture
def terminal(folder):
    """Start make on a terminal of 60 columns; gives the process, and a function that reads until what is shown matches."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    env = {name: value for name, value in nobodys().items() if name not in ("COLUMNS", "LINES")}
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            ["make", *arguments],
            cwd=folder,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        started.append(process)
        return process, read_until

    def read_until(pattern):
        shown, until = "", time.monotonic() + 30
        while not re.search(pattern, shown):
            assert time.monotonic() < until, shown
            try:
                shown += os.read(ours, 10_000).decode()
            except OSError:  # nobody is there any more
                break
        assert re.search(pattern, shown), shown
        return shown

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    os.close(ours)


def test_one_line_on_a_terminal_and_ctrl_c(folder, terminal):
    (folder / "sleep").touch()
    make, read_until = terminal("PYTHON=./python", "course")
    shown = read_until("0:01, Collecting")
    assert "\n" not in shown and all(len(drawn) <= 59 for drawn in shown.split("\r"))
    began = time.monotonic()
    os.killpg(make.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
    shown = read_until("stopped\\.")
    assert make.wait(10) != 0 and time.monotonic() - began < 5 and "Traceback" not in shown
    assert not (folder / ".venv" / ".ready").exists()


# The browser tests


def browser_tests(tmp_path, ci):
    """Run them where there is no Chromium."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    env = os.environ | {"PATH": str(tmp_path), "CI": ci}
    return subprocess.run(
        [*command, ROOT / "tests" / "browser" / "test_latency.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("ci", ["", "false"])
def test_without_chromium_the_browser_tests_are_skipped_at_a_readers(tmp_path, ci):
    result = browser_tests(tmp_path, ci)
    assert result.returncode == 0, result.stdout
    assert "no Chromium on this machine: `apt install chromium`" in result.stdout
    assert "4 skipped" in result.stdout


@pytest.mark.parametrize("ci", ["true", "1"])
def test_and_fail_in_ci(tmp_path, ci):
    result = browser_tests(tmp_path, ci)
    assert result.returncode == 1, result.stdout
    assert "no Chromium on this machine" in result.stdout and "this is no reason to skip" in result.stdout
    assert "skipped" not in result.stdout
    assert "CI=true make test-browser" in (ROOT / ".ci" / "run").read_text()


def test_ci_begins_with_the_style():
    commands = re.findall("^(?:CI=true )?make (\\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands == ["lint", "test", "test-widgets", "test-browser"]
