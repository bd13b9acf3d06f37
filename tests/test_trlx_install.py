"""Installing the real trlX: which one is here, and one line where it cannot be fetched."""

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from common import ROOT

from helpers import engine, packages
from helpers.errors import CourseError
from helpers.real_trlx import install

HERE = install.installed()


def pretend(monkeypatch, commit):
    """trlX as pip leaves it: a name, a version, and where it came from."""

    class Trlx:
        version = "0.7.0"

        def read_text(self, name):
            return json.dumps({"url": install.ADDRESS, "vcs_info": {"commit_id": commit}}) if commit else None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Trlx())


@pytest.mark.parametrize(
    "commit, text",
    [
        (install.COMMIT, "0.7.0, commit 3340c2f"),
        ("f" * 40, "0.7.0, commit fffffff (not the course's)"),
        (None, "0.7.0, commit unknown"),
    ],
)
def test_which_commit_is_here(monkeypatch, commit, text):
    pretend(monkeypatch, commit)
    monkeypatch.setenv("RLHF_ENGINE", "auto")
    assert engine.describe() == f"trlX {text}"


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
def test_without_trlx_auto_means_the_built_in_engine(monkeypatch):
    monkeypatch.setenv("RLHF_ENGINE", "auto")
    assert engine.describe().startswith("built-in PPO")
    monkeypatch.setenv("RLHF_ENGINE", "trlx")
    with pytest.raises(CourseError, match="python -m helpers trlx.*RLHF_ENGINE=builtin"):
        engine.describe()


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
@pytest.mark.parametrize(
    "address, why",
    [
        ("https://github.invalid/", "github.com cannot be reached"),
        ("file:///no/such/place/", "fatal: "),
    ],
)
def test_where_trlx_cannot_be_fetched_one_line_says_so(cli, address, why):
    """git is told to look elsewhere, so that this fails without a network and with one."""
    rerouted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf"}
    result = cli("trlx", GIT_CONFIG_VALUE_0="https://github.com/", **rerouted)
    assert result.returncode == 1
    (line,) = result.stdout.strip().splitlines()
    assert re.fullmatch(
        r"trlX was not installed \(.*\)\. The course goes on with its built-in engine\.", line
    )
    assert why in line


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
@pytest.mark.parametrize("fails_at, importable", [("deepspeed", True), ("trlx @", True), ("never", False)])
def test_an_installation_that_fails_half_way_leaves_the_built_in_engine(
    monkeypatch, capsys, fails_at, importable
):
    done = []

    def run(*command, **settings):
        if any(fails_at in word for word in command):
            raise subprocess.CalledProcessError(1, command, stderr="ERROR: Failed building wheel")
        done.append(" ".join(command))
        return "[]"

    monkeypatch.setattr(packages, "run", run)
    monkeypatch.setattr(install, "importable", lambda: importable)
    assert not install.install()
    assert "built-in engine" in capsys.readouterr().out.splitlines()[-1]
    came = [line for line in done if "trlx @" in line]
    assert not came or "uninstall" in done[-1]


# Nobody is asked, and nothing is waited for without end


@pytest.fixture
def stub_git(monkeypatch, tmp_path):
    """Puts a git on PATH that is this shell script; and trlX counts as not installed."""

    def put(script):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setattr(install, "installed", lambda: None)

    return put


def said(capsys):
    assert not install.install()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("). The course goes on with its built-in engine.")
    return line


ASKS = """\
(read answer < /dev/tty && echo "fatal: was answered" >&2) 2> /dev/null
read answer && { echo "fatal: was answered $answer" >&2; exit 128; }
[ -z "$GIT_ASKPASS$SSH_ASKPASS" ] || "$GIT_ASKPASS"
echo "fatal: could not read Username for 'https://github.com': terminal prompts disabled" >&2
exit 128"""


def test_no_login_is_asked_for_on_a_terminal(tmp_path, stub_git):
    """In a process that has a terminal as its own, as a reader's has, on which nobody answers."""
    stub_git(ASKS)
    script = "from helpers.real_trlx import install\ninstall.installed = lambda: None\ninstall.install()\n"
    child, terminal = pytest.importorskip("pty", reason="Windows has none").fork()
    if not child:
        os.chdir(ROOT)
        environment = os.environ | {"GIT_ASKPASS": "/bin/cat", "SSH_ASKPASS": "/bin/cat"}
        signal.alarm(60)  # ends it where it waits for an answer
        os.execve(sys.executable, [sys.executable, "-c", script], environment)
    shown = b""
    try:
        while data := os.read(terminal, 1024):
            shown += data
    except OSError:  # the terminal is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "waited for an answer"
    assert b"https://github.com/CarperAI/trlx wants a login, which the course does not ask for" in shown


def test_git_may_ask_nobody(stub_git, capsys, monkeypatch):
    monkeypatch.setenv("GIT_ASKPASS", "some-window")
    monkeypatch.setenv("SSH_ASKPASS", "some-window")
    names = "$GIT_TERMINAL_PROMPT,$GIT_ASKPASS,$SSH_ASKPASS,$SSH_ASKPASS_REQUIRE,$GCM_INTERACTIVE"
    stub_git(f'read answer; echo "fatal: {names}, read $answer" >&2; exit 128')
    assert "(fatal: 0,,,never,never, read)" in said(capsys)


@pytest.mark.skipif(HERE is not None, reason="trlX is installed here")
def test_nor_may_pip(monkeypatch, capsys):
    commands = pretend_to_install(monkeypatch, {})
    install.install()
    of_pip = [command for command in commands if "pip" in command]
    assert len(of_pip) >= 4 and all("--no-input" in command for command in of_pip)


def wait_until_gone(session):
    """Every process of the session has ended, or does within some seconds: a kill takes a moment."""

    def alive(process):
        with contextlib.suppress(psutil.Error, OSError):
            return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE

    _, left = psutil.wait_procs([process for process in psutil.process_iter() if alive(process)], timeout=10)
    assert not [process for process in left if alive(process)]


def test_an_address_that_does_not_answer(stub_git, capsys, monkeypatch, tmp_path):
    stub_git(f"echo $$ > '{tmp_path}/pid'; sleep 600 & sleep 600")
    monkeypatch.setattr(install, "ANSWER", 1)
    assert "github.com cannot be reached: no answer in 1 seconds" in said(capsys)
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_pip_that_takes_too_long(monkeypatch, capsys, stub_git):
    stub_git("exit 0")
    monkeypatch.setattr(packages, "WORK", 60)
    asked = []

    def slow(action, *arguments, **settings):
        asked.append(action)
        packages.run("sh", "-c", "sleep 600", seconds=0.1)

    monkeypatch.setattr(packages, "pip", slow)
    assert "(pip took longer than 0 minutes)" in said(capsys) and asked == ["list"]


def test_every_command_has_a_time():
    assert install.ANSWER == 30 and 600 <= packages.WORK <= 7200


def test_ctrl_c_ends_what_was_started(monkeypatch, tmp_path):
    class Interrupted(subprocess.Popen):
        def communicate(self, *arguments, **settings):
            (tmp_path / "pid").write_text(str(self.pid))
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        packages.run("sh", "-c", "sleep 600 & sleep 600")
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_what_git_says_is_shown_without_what_a_terminal_would_obey(stub_git, capsys):
    stub_git("printf 'fatal: \\033]52;c;eA==\\007 \\302\\2332J \\377\\n' >&2; exit 128")
    line = said(capsys)
    assert r"(fatal: \x1b]52;c;eA==\x07 \x9b2J" in line
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line)


def test_no_git_at_all(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(install, "installed", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "(git is not installed)" in said(capsys)


# Nothing is replaced


def pretend_to_install(monkeypatch, here):
    """Every command succeeds and adds nothing to these packages; returns the commands, with constraints in their place."""
    commands = []

    def run(*command, **settings):
        words = [
            Path(word).read_text() if word.endswith("constraints.txt") else str(word) for word in command
        ]
        commands.append(words)
        return json.dumps([{"name": name, "version": version} for name, version in here.items()])

    monkeypatch.setattr(packages, "run", run)
    monkeypatch.setattr(install, "importable", lambda: True)
    monkeypatch.setattr(install, "installed", lambda: None)
    return commands


def test_packages_that_are_here_are_constraints(monkeypatch, capsys):
    here = {"torch": "2.11.0+cu128", "rich": "14.1.0"}
    commands = pretend_to_install(monkeypatch, here)
    assert install.install()
    installing = [command for command in commands if "install" in command]
    for command in installing:
        if "--no-deps" not in command:
            at = command.index("--constraint")
            assert command[at + 1] == "torch===2.11.0+cu128\nrich===14.1.0\n"
        assert not {"--upgrade", "-U", "--force-reinstall"} & set(command)
    assert [command[-1].partition("=")[0] for command in installing if "--no-deps" in command] == [
        "torchtyping",
        f"trlx @ git+{install.ADDRESS}@{install.COMMIT}",
    ]
    assert "0 packages added, none replaced" in capsys.readouterr().out


def test_a_package_without_constraints_stays_in_another_version(monkeypatch):
    commands = pretend_to_install(monkeypatch, {"torchtyping": "0.1.4"})
    assert install.install()
    assert not any(word.startswith("torchtyping") for command in commands for word in command[-2:])


@pytest.mark.parametrize("commit", ["f" * 40, None])
def test_a_trlx_of_the_readers_own_stays(monkeypatch, capsys, commit):
    """A fork, or a clone that they work on: replaced or uninstalled, it would be gone."""
    commands = pretend_to_install(monkeypatch, {"trlx": "0.7.0"})
    monkeypatch.undo()
    monkeypatch.setattr(packages, "run", lambda *command, **settings: commands.append(command))
    monkeypatch.setattr(install, "importable", lambda: False)
    pretend(monkeypatch, commit)
    assert not install.install()
    assert not commands
    assert "cannot be imported. It stays as it is" in capsys.readouterr().out


def test_what_trlx_needs_is_bounded():
    for requirement in install.NEEDED:
        assert re.fullmatch(r"[a-z]+>=[\d.]+,<[\d.]+", requirement), requirement
    assert re.fullmatch(r"[0-9a-f]{40}", install.COMMIT)


# Nothing happens before the engine is chosen


def test_what_needs_no_trlx_sets_nothing_when_it_is_imported():
    script = (
        "import logging, os, random, sys, warnings, torch, transformers, accelerate, helpers.ppo.run\n"
        "def state():\n"
        "    return [dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), sys.path[:], sys.excepthook,\n"
        "            logging.root.manager.disable, list(map(str, warnings.filters)), vars(torch.distributed).copy()]\n"
        "before = state()\n"
        "import helpers.engine, helpers.real_trlx.install, helpers.real_trlx.model, helpers.real_trlx.patches\n"
        "assert state() == before and 'trlx' not in sys.modules and 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_built_in_engine_never_imports_trlx(tmp_path):
    script = (
        "import sys; from ppo_run import *; from helpers import engine\n"
        f"config = small_config({str(tmp_path)!r}, train=dict(total_steps=1))\n"
        "engine.train(reward_fn=count_the, prompts=PROMPTS, config=config)\n"
        "assert 'trlx' not in sys.modules and 'helpers.real_trlx.train' not in sys.modules\n"
    )
    paths = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": paths}, check=True)
