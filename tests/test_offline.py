"""`python -m helpers prefetch DIR --packages`: a real pip, and tiny wheels made here, in a small course of their own."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
from common import ROOT, write_wheel

from helpers import files, offline
from helpers.errors import CourseError

FILES = {
    "requirements.txt": "torch>=2.10\nclick>=8  # a comment\nnone; python_version < '3'\n",
    "tests/requirements.txt": "pytest\n",
    "requirements-lab.txt": "jupyterlab\n",
    "constraints.txt": "torch==2.13.0\nclick==8.1\nunasked==1\n",
}
# name-version, what it requires, its tag
WHEELS = [
    ("torch-2.12.0", [], "py3-none-any"),
    (
        "torch-2.13.0",
        ["nvidia-cublas"],
        "py3-none-any",
    ),  # gives way to the build for a CPU, where there is one
    ("torch-2.13.0+cpu", ["numpy[fast]"], "py3-none-any"),
    ("torch-2.14.0", [], "py3-none-any"),
    ("click-8.1", ["colorama; sys_platform == 'win32'", "uvloop; sys_platform == 'linux'"], "py3-none-any"),
    ("click-8.2", [], "py3-none-any"),
    ("numpy-2.0", ["blas; extra == 'fast'", "never; extra == 'slow'"], "cp312-cp312-win_amd64"),
    ("numpy-2.0", ["blas; extra == 'fast'", "never; extra == 'slow'"], "cp313-cp313-macosx_11_0_arm64"),
    ("numpy-2.0", ["blas; extra == 'fast'", "never; extra == 'slow'"], "cp311-abi3-manylinux_2_28_x86_64"),
    ("blas-3", ["old-python; python_version < '3.12'"], "py3-none-any"),
    ("old_python-1", [], "py3-none-any"),
    ("colorama-1", [], "py3-none-any"),
    ("uvloop-1", [], "py3-none-any"),
    ("pytest-9", ["blas<4"], "py3-none-any"),
    ("jupyterlab-4", ["appnope; platform_system == 'Darwin'", "jupyterlab[self]"], "py3-none-any"),
    ("appnope-1", [], "py3-none-any"),
]
EVERYWHERE = {"torch", "click", "numpy", "blas", "pytest", "jupyterlab"}


def build(folder, what, requires, tag):
    """A wheel with nothing in it but what pip reads."""
    return write_wheel(folder, *what.split("-"), requires, tag)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of few requirements, and pip without a network: all there is lies in a folder."""
    for name, text in FILES.items():
        (tmp_path / "course" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "course" / name).write_text(text)
    for wheel in WHEELS:
        build(tmp_path / "index", *wheel)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(offline, "ROOT", tmp_path / "course")
    monkeypatch.chdir(tmp_path / "course")
    return tmp_path / "course"


def names(folder):
    """The packages in a folder, and every other name that is there."""
    return sorted(path.name.split("-")[0] for path in (folder / "packages").iterdir())


@pytest.mark.parametrize(
    "platform, python, beside",
    [
        ("win_amd64", "3.12", {"colorama"}),
        ("macosx_14_0_arm64", "3.13", {"appnope"}),
        ("manylinux_2_34_x86_64", "3.11", {"uvloop", "old_python"}),
    ],
)
def test_what_another_machine_needs_is_judged_by_that_machine(
    course, tmp_path, capsys, platform, python, beside
):
    offline.prefetch(tmp_path / "a stick", platform, python)
    assert names(tmp_path / "a stick") == sorted(EVERYWHERE | beside)
    there = {path.name for path in (tmp_path / "a stick" / "packages").iterdir()}
    assert "torch-2.13.0+cpu-py3-none-any.whl" in there and "click-8.1-py3-none-any.whl" in there  # as pinned
    said = capsys.readouterr().out
    assert f"Complete: {len(there)} packages" in said
    assert ("make course FROM=" in said) == (platform != "win_amd64")


def test_from_the_folder_pip_installs_everything(course, tmp_path, monkeypatch):
    build(
        tmp_path / "index", "numpy-2.0", ["blas; extra == 'fast'"], "py3-none-any"
    )  # for whatever runs the tests
    offline.prefetch(tmp_path / "a stick")
    monkeypatch.delenv("PIP_FIND_LINKS")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--target", tmp_path / "installed"]
    sets = [word for name in offline.SETS for word in ("-r", name)]
    subprocess.run(
        [*pip, "--find-links", tmp_path / "a stick" / "packages", "-c", "constraints.txt", *sets], check=True
    )
    assert {*EVERYWHERE} <= {path.name.split("-")[0] for path in (tmp_path / "installed").iterdir()}


def test_a_second_run_fetches_what_is_missing_or_damaged_and_nothing_else(course, tmp_path, capsys):
    stick = tmp_path / "stick"
    offline.prefetch(stick, "win_amd64", "3.12")
    capsys.readouterr()
    place = stick / "packages"
    (place / "colorama-1-py3-none-any.whl").unlink()
    whole = (place / "blas-3-py3-none-any.whl").read_bytes()
    (place / "blas-3-py3-none-any.whl").write_bytes(whole[:-30])  # a copy that was cut short
    (place / "mine.whl").write_text("no wheel")
    offline.prefetch(stick, "win_amd64", "3.12")
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(" ...")] == ["colorama, blas ..."]
    assert "blas-3-py3-none-any.whl is damaged. It is blas-3-py3-none-any.whl.damaged-1 now." in said
    assert (place / "blas-3-py3-none-any.whl").read_bytes() == whole
    assert (place / "blas-3-py3-none-any.whl.damaged-1").read_bytes() == whole[:-30]
    assert (place / "mine.whl").read_text() == "no wheel"
    shutil.rmtree(tmp_path / "index")  # nothing is asked for any more
    offline.prefetch(stick, "win_amd64", "3.12")
    assert " ...\n" not in capsys.readouterr().out


def test_a_later_and_narrower_range_counts_too(course, tmp_path):
    build(tmp_path / "index", "blas-4", [], "py3-none-any")  # numpy comes before pytest, which wants blas<4
    (course / "requirements.txt").write_text("blas\npytest\n")
    offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")
    assert (tmp_path / "stick" / "packages" / "blas-3-py3-none-any.whl").is_file()


def test_what_the_index_lacks_is_named_and_the_rest_stays(course, tmp_path):
    (course / "constraints.txt").write_text("blas==5\n")
    with pytest.raises(
        CourseError, match="index has no blas.*==5.* for this platform and Python, only other"
    ):
        offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")
    assert {"torch", "numpy"} - set(names(tmp_path / "stick")) == {"numpy"}
    (course / "constraints.txt").write_text(FILES["constraints.txt"])
    (tmp_path / "index" / "numpy-2.0-cp312-cp312-win_amd64.whl").unlink()
    with pytest.raises(CourseError, match="index has no numpy.* for this platform and Python"):
        offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")


def test_a_constraint_of_the_readers_is_said_to_be_in_the_way(course, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("blas<3\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "mine.txt"))
    (course / "requirements.txt").write_text("blas>2\n")
    with pytest.raises(
        CourseError, match="pip found no .*blas>2.* for this platform .*fits its own settings too"
    ):
        offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")


# An index that is slow, cut off, or not there


@pytest.fixture
def index(course, tmp_path, monkeypatch):
    """Serves the wheels as an index does; `index.torch` says what becomes of torch's: "whole", "half", or "waits"."""

    class Index(http.server.SimpleHTTPRequestHandler):
        torch, asked, waits = "whole", threading.Event(), threading.Event()

        def do_GET(self):
            name = self.path.strip("/").split("/")[-1].replace("%2B", "+")
            if not name.endswith(".whl"):
                links = [
                    path.name
                    for path in (tmp_path / "index").glob("*.whl")
                    if path.name.split("-")[0] == name
                ]
                body = "".join(f"<a href='/{link}'>{link}</a>\n" for link in links).encode()
                kind = "text/html"
            else:
                body, kind = (tmp_path / "index" / name).read_bytes(), "application/octet-stream"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if name.startswith("torch-") and Index.torch != "whole":
                self.wfile.write(body[:100])
                self.wfile.flush()
                Index.asked.set()
                if Index.torch == "waits":
                    Index.waits.wait(60)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    (course / "requirements.txt").write_text("click\ntorch\n")
    yield Index
    Index.waits.set()
    server.shutdown()
    server.server_close()


def test_a_half_file_never_counts(index, tmp_path):
    index.torch = "half"
    with pytest.raises(CourseError, match="fetched so far are kept"):
        offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")
    assert names(tmp_path / "stick") == []
    index.torch = "whole"
    offline.prefetch(tmp_path / "stick", "win_amd64", "3.12")
    assert "torch" in names(tmp_path / "stick")


def test_killed_in_the_middle_it_goes_on(index, course, tmp_path, capsys):
    index.torch = "waits"
    script = "import sys; from pathlib import Path; from helpers import offline; offline.ROOT = Path(sys.argv[1]); "
    script += "offline.AT_ONCE = 1; "
    script += "offline.prefetch(Path(sys.argv[2]), 'win_amd64', '3.12')"
    stick = tmp_path / "stick"
    process = subprocess.Popen(
        [sys.executable, "-c", script, course, stick],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert index.asked.wait(60)
    process.kill()
    process.communicate()
    index.torch = "whole"
    index.waits.set()
    assert (stick / "packages" / "click-8.1-py3-none-any.whl").is_file()
    assert not list((stick / "packages").glob("torch*"))
    offline.prefetch(stick, "win_amd64", "3.12")
    said = capsys.readouterr().out
    assert "torch" in said and "click" not in said
    assert names(stick) == sorted(EVERYWHERE | {"colorama"})  # and nothing of what was half there


def test_without_a_network_one_sentence_says_so(cli, tmp_path):
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "1",
        "PIP_FIND_LINKS": "",
    }
    result = cli("prefetch", tmp_path / "stick", "--packages", **nowhere)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert (
        "The package index does not answer, or broke off. The packages fetched so far are kept"
        in result.stderr
    )
    assert not list((tmp_path / "stick" / "packages").iterdir())


# Refused before anything is fetched


@pytest.mark.parametrize(
    "tag",
    [
        "windows",
        "win",
        "win_32",
        "macosx_14_arm64",
        "macosx_x_0_arm64",
        "manylinux_3_1_x86_64",
        "any",
        "; ls",
    ],
)
def test_a_platform_that_is_none_is_refused(course, tmp_path, tag):
    with pytest.raises(
        CourseError, match=re.escape(f"--platform is {tag!r}: expected a platform tag of pip's")
    ):
        offline.prefetch(tmp_path / "stick", tag)
    assert not (tmp_path / "stick").exists()


def test_so_are_a_python_without_the_course_a_file_and_a_full_disk(course, tmp_path, monkeypatch):
    with pytest.raises(
        CourseError, match="--python-version is '3.9': the course runs on Python 3.11, 3.12 or 3.13"
    ):
        offline.prefetch(tmp_path / "stick", python="3.9")
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="is no folder"):
        offline.prefetch(tmp_path / "file")
    monkeypatch.setattr(files, "free_space", lambda folder: 10_000_000)
    with pytest.raises(CourseError, match="needs about .* MB and 10 MB are free"):
        offline.prefetch(tmp_path / "stick")
    assert not (tmp_path / "stick").exists()


def test_a_platform_without_packages_is_refused(cli, tmp_path):
    result = cli("prefetch", tmp_path / "stick", "--platform", "win_amd64")
    assert (
        result.returncode == 2
        and "are about packages: python -m helpers prefetch DIR --packages" in result.stderr
    )


# What is in the course


def test_every_package_that_make_installs_is_named():
    """The same files stand in the Makefile; and each of their packages is pinned."""
    makefile = (ROOT / "Makefile").read_text()
    for name in offline.SETS:
        assert f"-r {name}" in makefile
    pins = offline.by_name(offline.read_all(["constraints.txt"]))
    for requirement in offline.read_all(offline.SETS):
        pin = pins[offline.canonicalize_name(requirement.name)]
        (version,) = [each.version for each in pin.specifier]
        assert requirement.specifier.contains(version), requirement
