"""Stamping where the course lives, on a copy; and the Setup cell, run as on Colab."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest
from common import ROOT

from helpers import notebooks
from helpers.errors import CourseError
from helpers.maintain import publish, stored_outputs
from helpers.maintain.publish import Place
from helpers.tiny import TINY as TINY_MODELS

HERE = Place("octocat/rlhf-course", "stable")
README = f"# A course\n\n{publish.README_START}\n{publish.UNPUBLISHED}\n{publish.README_END}\n\nWords.\n"


@pytest.fixture
def copy(tmp_path, make_notebook):
    """A small course with two notebooks, and any the course really has."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*", "data"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "colab_gpu.ipynb", folder / "tests")
    (folder / "README.md").write_text(README)
    publish.publish(Place(), folder)  # the course itself may be published already
    (folder / "helpers").symlink_to(ROOT / "helpers")
    for name in ("98_small.ipynb", "99_small.ipynb"):
        make_notebook(folder / "notebooks" / name, "print('café ✓')")
        unstamp(folder / "notebooks" / name)
    return folder


def unstamp(path):
    path.write_text(publish.stamp_notebook(path.read_text(), path.name, Place()))


def contents(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "helpers" not in path.parts
    }


def test_everything_agrees_and_comes_off_again(copy):
    before = contents(copy)
    changed = publish.publish(HERE, copy)
    assert set(changed) == set(before)
    assert publish.read_place(copy) == HERE
    for path in [*copy.glob("notebooks/*.ipynb"), *copy.glob("tests/*.ipynb")]:
        notebook = nbformat.read(path, as_version=4)
        line, blank = notebook.cells[0].source.splitlines()[:2]
        assert links(line) == addresses("octocat/rlhf-course", "stable", f"{path.parent.name}/{path.name}")
        assert line.count("<br>On Colab: ") == 1 and "Save a copy in Drive" in line and blank == ""
        setup = notebooks.code_cells(notebook)[0].source
        assert 'REPOSITORY, BRANCH = "octocat/rlhf-course", "stable"\nSCALE = ""' in setup
    readme = (copy / "README.md").read_text()
    assert links(readme) == addresses("octocat/rlhf-course", "stable", "notebooks/01_install.ipynb")
    assert f"{publish.README_START}\n[![Open In Colab]" in readme

    assert publish.publish(HERE, copy) == []  # once more changes nothing
    publish.publish(Place("someone/else"), copy)
    assert "octocat" not in "".join(data.decode() for data in contents(copy).values())
    publish.publish(Place(), copy)
    assert contents(copy) == before


def links(text):
    return re.findall(r"\)\]\((https://[^)]+)\)", text)  # not those of pictures


def addresses(repository, branch, notebook):
    """Where the buttons lead: Colab, Kaggle, Binder, Codespaces, each in its own form."""
    return [
        f"https://colab.research.google.com/github/{repository}/blob/{branch}/{notebook}",
        f"https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/{branch}/{notebook}",
        f"https://mybinder.org/v2/gh/{repository}/{branch.replace('/', '%2F')}?urlpath=lab/tree/{notebook}",
        f"https://codespaces.new/{repository}/tree/{branch}",
    ]


def test_a_branch_with_a_slash_in_its_name():
    place = Place("octocat/rlhf-course", "class/of-2027")
    line = publish.badge_line("notebooks/01_install.ipynb", place)
    assert links(line) == addresses("octocat/rlhf-course", "class/of-2027", "notebooks/01_install.ipynb")


def test_a_scale_and_an_engine_for_a_class(copy):
    before = contents(copy)
    tiny = Place("octocat/rlhf-course", scale="tiny", engine="builtin")
    publish.publish(tiny, copy)
    assert publish.read_place(copy) == tiny
    paths = sorted(copy.glob("notebooks/*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        setup = notebooks.code_cells(notebook)[0].source
        assert setup == publish.setup_cell(tiny)
        assert '\nSCALE = "tiny"  # @param ["", "tiny", "full"]\n' in setup
        assert '\nENGINE = "builtin"  # @param ["", "trlx", "builtin"]\n' in setup
        assert "accelerator" not in notebook.metadata and "gpuType" not in notebook.metadata.get("colab", {})
    assert nbformat.read(copy / "tests" / "colab_gpu.ipynb", as_version=4).metadata.accelerator == "GPU"

    publish.publish(Place("octocat/rlhf-course", scale="full"), copy)
    for path in paths:
        metadata = nbformat.read(path, as_version=4).metadata
        assert "colab" not in metadata or (metadata.accelerator, metadata.colab.gpuType) == ("GPU", "T4")
    publish.publish(tiny, copy)
    publish.publish(Place(), copy)
    assert contents(copy) == before


def test_another_gpu_than_the_courses_stays(copy):
    def ask(name):
        path = copy / "notebooks" / "01_install.ipynb"
        notebook = json.loads(path.read_text())
        notebook["metadata"]["colab"]["gpuType"] = name
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")

    ask("A100")
    before = contents(copy)
    publish.publish(Place("octocat/rlhf-course", scale="tiny"), copy)
    publish.publish(Place(), copy)
    assert contents(copy) == before


def test_outputs_and_hash_survive(copy):
    path = copy / "notebooks" / "99_small.ipynb"
    stored_outputs.store_outputs([path.name], path.parent)
    before = nbformat.read(path, as_version=4)
    publish.publish(Place("octocat/rlhf-course", "stable", "tiny", "builtin"), copy)
    after = nbformat.read(path, as_version=4)
    assert [cell.get("outputs") for cell in after.cells] == [cell.get("outputs") for cell in before.cells]
    assert (
        after.metadata.course.code_sha256
        == before.metadata.course.code_sha256
        == stored_outputs.code_hash(after)
    )


def test_unpublished_links_nowhere():
    assert "http" not in publish.badge_line("notebooks/01_install.ipynb", Place())
    assert "`make publish` adds the buttons" in publish.badge_line("notebooks/01_install.ipynb", Place())
    assert publish.setup_cell(Place()) == publish.SETUP


@pytest.mark.parametrize(
    "repository",
    [
        "name",
        "https://github.com/owner/name",
        "owner/name/more",
        "own er/name",
        'owner/na"me',
        "-o/name",
        "/name",
    ],
)
def test_impossible_repository(repository):
    with pytest.raises(CourseError, match="is not a GitHub repository: expected owner/name"):
        Place(repository)


@pytest.mark.parametrize("branch", ["", "a b", "a..b", "-x", "$(id)", "a;b"])
def test_impossible_branch(branch):
    with pytest.raises(CourseError, match="is not a branch"):
        Place("owner/name", branch)


@pytest.mark.parametrize(
    "fixed, message",
    [
        ({"scale": "small"}, "'small' is not a scale: expected tiny or full"),
        ({"scale": 'tiny"'}, "is not a scale"),
        ({"engine": "trl"}, "'trl' is not an engine: expected trlx or builtin"),
    ],
)
def test_impossible_scale_or_engine(fixed, message):
    with pytest.raises(CourseError, match=message):
        Place("owner/name", **fixed)


# The repository that git knows


def remote(folder, address=None):
    """A git repository with that origin, or with none."""
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    if address:
        subprocess.run(["git", "remote", "add", "origin", address], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/octocat/rlhf-course",
        "https://github.com/octocat/rlhf-course.git",
        "https://github.com/octocat/rlhf-course/",
        "https://octocat:secret@github.com/octocat/rlhf-course.git",
        "https://www.github.com/octocat/rlhf-course",
        "git@github.com:octocat/rlhf-course.git",
        "git@github.com:octocat/rlhf-course",
        "ssh://git@github.com/octocat/rlhf-course.git",
        "ssh://git@github.com:22/octocat/rlhf-course",
        "git://GitHub.com/octocat/rlhf-course.git",
    ],
)
def test_the_repository_is_taken_from_git(tmp_path, address):
    assert publish.read_remote(remote(tmp_path / "course", address)) == "octocat/rlhf-course"


@pytest.mark.parametrize(
    "address, message",
    [
        (None, "git knows no remote called origin"),
        (
            "https://gitlab.com/octocat/rlhf-course.git",
            "origin is https://gitlab.com/octocat/rlhf-course.git, which is not on",
        ),
        ("git@gitlab.com:octocat/rlhf-course.git", "not on github.com"),
        ("https://notgithub.com/octocat/rlhf-course", "not on github.com"),
        ("https://github.com.example.org/octocat/rlhf-course", "not on github.com"),
        ("https://github.com@example.org/octocat/rlhf-course", "not on github.com"),
        ("https://example.org/github.com/octocat/rlhf-course", "not on github.com"),
        ("/srv/github.com/octocat/rlhf-course", "not on github.com"),
        ("https://github.com/octocat", "not on github.com"),
        (
            "https://octocat:secret@example.org/octocat/rlhf-course",
            "origin is https://example.org/octocat/rlhf-course, which",
        ),
    ],
)
def test_or_asked_for_where_git_knows_none(tmp_path, address, message):
    with pytest.raises(CourseError, match="make publish REPO=owner/name") as raised:
        publish.read_remote(remote(tmp_path / "course", address))
    assert message in str(raised.value) and "secret" not in str(raised.value)


def test_the_repository_around_the_course_is_not_the_courses(tmp_path):
    outer = remote(tmp_path / "outer", "https://github.com/someone/else")
    (outer / "course").mkdir()
    for folder in (outer / "course", tmp_path):
        with pytest.raises(CourseError, match="no git repository of its own"):
            publish.read_remote(folder)


def test_without_git(tmp_path, monkeypatch):
    folder = remote(tmp_path / "course", "https://github.com/octocat/rlhf-course")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CourseError, match="git, which knows where the course comes from, is not installed"):
        publish.read_remote(folder)


def test_publish_says_what_it_took(copy):
    (copy / "helpers").unlink()
    shutil.copytree(
        ROOT / "helpers", copy / "helpers", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
    )
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    subprocess.run(
        ["git", "remote", "add", "origin", "git@github.com:octocat/rlhf-course.git"], cwd=copy, check=True
    )
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "helpers",
            "publish",
            "--branch=stable",
            "--scale=tiny",
            "--engine=",
            "--",
            "",
        ],
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[:2] == [
        "repository octocat/rlhf-course, which git calls origin",
        "branch stable, scale tiny, engine as the course chooses",
    ]
    assert "stamped pyproject.toml" in said and "stamped notebooks/98_small.ipynb" in said
    assert publish.read_place(copy) == Place("octocat/rlhf-course", "stable", "tiny")


def spoil_encoding(copy):
    (copy / "README.md").write_bytes(README.replace("Words", "Caf\xe9").encode("latin-1"))


def spoil_json(copy):
    (copy / "notebooks" / "98_small.ipynb").write_text('{"cells": [')


def spoil_list(copy):
    (copy / "notebooks" / "98_small.ipynb").write_text("[]")


def spoil_cells(copy):
    edit(copy, lambda cells: cells.clear())


def spoil_source(copy):
    edit(copy, lambda cells: cells[1].pop("source"))


def spoil_source_kind(copy):
    edit(copy, lambda cells: cells[1].update(source=[1, None]))


def spoil_cell_kind(copy):
    edit(copy, lambda cells: cells.append(None))


def spoil_first_cell(copy):
    edit(copy, lambda cells: cells[0].update(source=[]))


def lose_readme(copy):
    (copy / "README.md").unlink()


def spoil_readme(copy):
    (copy / "README.md").write_text("# A course\n")


def spoil_badge(copy):
    edit(copy, lambda cells: cells[0].update(source="# A title"))


def spoil_setup(copy):
    edit(copy, lambda cells: cells[1].update(source="import os"))


def spoil_pyproject(copy):
    (copy / "pyproject.toml").write_text("[tool.other]\n")


def edit(copy, change):
    path = copy / "notebooks" / "98_small.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook["cells"])
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_readme, "README.md: expected one place for the buttons"),
        (spoil_badge, "98_small.ipynb: the first line should be the Colab button"),
        (spoil_setup, "98_small.ipynb: the first code cell should be the Setup cell"),
        (spoil_pyproject, "pyproject.toml: expected one table"),
        (spoil_encoding, r"README.md is not UTF-8 text \(byte \d+ is 0xe9\): save it as UTF-8"),
        (spoil_json, "98_small.ipynb is not a whole notebook .*: fetch the course's own"),
        (spoil_list, "98_small.ipynb is not a whole notebook"),
        (spoil_cells, "98_small.ipynb is not a whole notebook .it has no cells"),
        (spoil_source, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_source_kind, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_cell_kind, "98_small.ipynb is not a whole notebook .its cells are not those of a notebook"),
        (spoil_first_cell, "98_small.ipynb: the first line should be the Colab button"),
        (lose_readme, "README.md cannot be read"),
    ],
)
def test_nothing_is_written_unless_all_can_be(copy, spoil, message):
    spoil(copy)
    before = contents(copy)
    with pytest.raises(CourseError, match=message):
        publish.publish(HERE, copy)
    assert contents(copy) == before


def fail_at(monkeypatch, wanted, error):
    """Writing fails from the file at these places of the order on; returns what was written."""
    written, whole = [], publish.write_text

    def write(path, text):
        written.append(path)
        if len(written) in wanted:
            raise error
        whole(path, text)

    monkeypatch.setattr(publish, "write_text", write)
    return written


@pytest.mark.parametrize("error", [CourseError("the disk is full."), KeyboardInterrupt()])
@pytest.mark.parametrize("place", [1, 3, 11])
def test_where_one_cannot_be_written_the_others_are_put_back(copy, monkeypatch, place, error):
    (copy / "README.md").write_bytes(README.replace("\n", "\r\n").encode())
    before = contents(copy)
    written = fail_at(monkeypatch, [place], error)
    with pytest.raises(type(error)) as raised:
        publish.publish(HERE, copy)
    assert contents(copy) == before and len(written) >= place
    if isinstance(error, CourseError):
        assert str(raised.value) == "the disk is full. No file is stamped."


def test_and_where_that_fails_too_they_are_named(copy, monkeypatch):
    before = contents(copy)
    fail_at(monkeypatch, range(3, 100), CourseError("the disk is full."))
    with pytest.raises(CourseError, match=r"full\. pyproject.toml, README.md may be stamped already.*again"):
        publish.publish(HERE, copy)
    assert {path.name for path, data in contents(copy).items() if data != before[path]} == {
        "pyproject.toml",
        "README.md",
    }
    monkeypatch.undo()
    publish.publish(Place(), copy)
    assert contents(copy) == before


def test_the_readers_notebooks_are_not_stamped(copy, make_notebook):
    mine = [
        copy / "notebooks" / name for name in ("mine.ipynb", "99_small-Copy1.ipynb", "99_small.yours.ipynb")
    ]
    mine.append(copy / "tests" / "mine.ipynb")
    for path in mine[1:]:
        make_notebook(path, "1")
    mine[0].write_text("not even a notebook")
    before = [path.read_bytes() for path in mine]
    publish.publish(HERE, copy)
    assert [path.read_bytes() for path in mine] == before


def test_line_ends_and_half_characters_stay(copy):
    (copy / "README.md").write_bytes(README.replace("\n", "\r\n").encode())
    edit(copy, lambda cells: cells[2].update(outputs=[stream("half \ud83d of it")]))
    publish.publish(Place(), copy)  # lays the notebook out
    before = contents(copy)
    publish.publish(HERE, copy)
    readme = (copy / "README.md").read_bytes()
    assert b"octocat" in readme and readme.count(b"\n") == readme.count(b"\r\n")
    publish.publish(Place(), copy)
    assert contents(copy) == before
    assert b"half \\ud83d of it" in (copy / "notebooks" / "98_small.ipynb").read_bytes()


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


# The Setup cell, run in a kernel


def run_setup(path, **env):
    """What a notebook prints, run with nothing of the course in the environment but `env`."""
    notebook = nbformat.read(path, as_version=4)
    unasked = ("RLHF_", "COLAB_", "KAGGLE_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(unasked)}
    notebooks.execute(notebook, path, own | env)
    return "".join(
        output.get("text", "") for cell in notebooks.code_cells(notebook) for output in cell.outputs
    )


COLAB = {"COLAB_RELEASE_TAG": "release-colab"}
KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}
HOSTS = pytest.mark.parametrize("host", [COLAB, KAGGLE], ids=["Colab", "Kaggle"])


@pytest.fixture
def on_github(tmp_path):
    """A repository that git finds under a GitHub address, for git clone to be run for real without a network."""
    work = tmp_path / "github" / "octocat" / "rlhf-course"
    for folder in ("helpers", "notebooks"):
        (work / folder).mkdir(parents=True)
    for module in (ROOT / "helpers").glob("*.py"):
        shutil.copy(module, work / "helpers")
    (work / "helpers" / "course.py").write_text(
        "fetched = True\n\n\ndef start():\n    print('started')\n    return 'here'\n"
    )
    (work / "helpers" / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    (work / "notebooks" / "01_x.ipynb").touch()
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q", "-b", "stable"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=work, check=True)
    return instead_of_github((tmp_path / "github").as_uri())


def instead_of_github(address):
    """Variables that have git look at another address for what is on GitHub."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{address}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }


def alone(make_notebook, path, place, *sources):
    """A stamped notebook with nothing of the course around it."""
    make_notebook(path, *sources)
    unstamp(path)
    path.write_text(publish.stamp_notebook(path.read_text(), path.name, place))
    return path


SETTINGS = "print(*(os.environ.get(name) or '-' for name in ('RLHF_SCALE', 'RLHF_ENGINE')))"


@HOSTS
def test_setup_where_one_notebook_is_alone(tmp_path, make_notebook, on_github, host):
    path = alone(
        make_notebook,
        tmp_path / "content" / "01_small.ipynb",
        HERE,
        publish.setup_cell(HERE),  # a second time, as readers do
        "print(os.getcwd(), course.fetched, here)",
        SETTINGS,
    )
    for _ in ("the first notebook of a session", "the next one"):
        said = run_setup(path, **on_github, **host).splitlines()
        where = tmp_path / "content" / "course" / "notebooks"
        assert said == ["install", "started", "started", f"{where} True here", "- -"]


@HOSTS
def test_setup_that_can_fetch_nothing(tmp_path, make_notebook, host):
    path = alone(make_notebook, tmp_path / "content" / "01_small.ipynb", HERE)
    nowhere = instead_of_github((tmp_path / "no-such-folder").as_uri())
    with pytest.raises(
        CourseError,
        match="AssertionError: Nothing came from github.com/octocat/rlhf-course, .* On Kaggle, turn Internet on",
    ) as raised:
        run_setup(path, **nowhere, **host)
    assert "FileNotFoundError" not in str(raised.value)
    assert not (tmp_path / "content" / "course").exists()


class Gone(BaseHTTPRequestHandler):
    """Answers as GitHub does where a repository is gone or private: who are you?"""

    def do_GET(self):
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="GitHub"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def patience():
    """Two minutes for what would otherwise wait forever."""

    def out(*_):
        raise TimeoutError("it waits for an answer")

    before = signal.signal(signal.SIGALRM, out)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_setup_asks_for_no_name_where_the_repository_is_gone(tmp_path, make_notebook, patience):
    path = alone(make_notebook, tmp_path / "content" / "01_small.ipynb", HERE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Gone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gone = instead_of_github(f"http://127.0.0.1:{server.server_port}") | {"NO_PROXY": "127.0.0.1"}
        with pytest.raises(
            CourseError, match="AssertionError: Nothing came from github.com/octocat/rlhf-course"
        ):
            run_setup(path, **gone, **COLAB)
        server.shutdown()


def test_setup_beside_a_folder_of_the_readers(tmp_path, make_notebook, on_github):
    """It is called as the course's would be, and stays as it is."""
    path = alone(make_notebook, tmp_path / "content" / "01_small.ipynb", HERE)
    mine = tmp_path / "content" / "course" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(
        CourseError, match="AssertionError: Nothing came from github.com/octocat/rlhf-course, see above"
    ):
        run_setup(path, **on_github, **COLAB)
    assert mine.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]


def test_setup_before_publishing(tmp_path, make_notebook, on_github):
    path = alone(make_notebook, tmp_path / "content" / "01_small.ipynb", Place())
    with pytest.raises(
        CourseError,
        match="AssertionError: This copy of the course is not published yet, so it cannot be fetched",
    ):
        run_setup(path, **on_github, **KAGGLE)
    assert not (tmp_path / "content" / "course").exists()


def test_setup_elsewhere_finds_the_course_and_stays(copy, make_notebook):
    path = make_notebook(
        copy / "notebooks" / "01_small.ipynb",
        "print(os.getcwd(), sys.path[0], here.scale)",
        SETTINGS,
    )
    unstamp(path)
    started, *said = run_setup(path).splitlines()
    assert started.startswith("Scale tiny · ") and started.endswith(" · results in out/tiny")
    assert said == [f"{copy / 'notebooks'} {copy} tiny", "- -"]


def test_setup_beside_nothing_fetches_nothing_unasked(tmp_path, make_notebook, on_github):
    path = alone(make_notebook, tmp_path / "downloads" / "01_small.ipynb", HERE)
    with pytest.raises(CourseError, match="AssertionError: .*download the whole course, not one file"):
        run_setup(path, **on_github)
    assert list(path.parent.iterdir()) == [path]


TINY = Place("octocat/rlhf-course", "stable", "tiny", "builtin")


def test_a_stamped_scale_on_colab(tmp_path, make_notebook, on_github):
    path = alone(make_notebook, tmp_path / "content" / "01_small.ipynb", TINY, SETTINGS)
    assert run_setup(path, **on_github, **COLAB).splitlines()[-1] == "tiny builtin"


@pytest.fixture
def full(hub):
    """What full scale needs to start: a hub that answers."""
    return {
        "HF_ENDPOINT": hub({"models/openai-community/gpt2": TINY_MODELS / "gpt2"}),
        "NO_PROXY": "127.0.0.1",
    }


def test_a_stamped_scale_where_the_environment_names_one(copy, make_notebook, full):
    path = alone(make_notebook, copy / "notebooks" / "01_small.ipynb", TINY, SETTINGS)
    assert run_setup(path, RLHF_SCALE="full", **full).splitlines()[-1] == "full builtin"


def test_the_form_can_be_changed_and_run_again(copy, make_notebook, full):
    """As on Colab, where the fields are drop-down lists: what is chosen last counts; what a reader set by hand stays."""
    cells = [
        publish.setup_cell(Place(scale=scale, engine=engine))
        for scale, engine in [("full", "builtin"), ("", "")]
    ]
    path = make_notebook(
        copy / "notebooks" / "01_small.ipynb",
        *[source for cell in cells for source in (cell, SETTINGS)],
        "%env RLHF_SCALE=full",
        publish.setup_cell(TINY),
        SETTINGS,
    )
    path.write_text(publish.stamp_notebook(path.read_text(), path.name, TINY))
    said = [line for line in run_setup(path, **full).splitlines() if "env:" not in line]
    assert [line.split(" · ")[0] for line in said] == [
        "Scale tiny",  # of the notebook's own Setup cell, which is stamped
        "Scale full",
        "full builtin",
        "Scale tiny",
        "- -",
        "Scale full",
        "full builtin",
    ]
