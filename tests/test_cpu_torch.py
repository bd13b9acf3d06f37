"""Where torch comes from: .ci/cpu_torch.py with a real pip, and an index on this machine."""

import http.server
import importlib.util
import os
import threading

import pytest
from common import ROOT

PAGE = "<a href='/whl/cpu/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl'>torch</a>"


@pytest.fixture
def cpu_torch(monkeypatch, tmp_path):
    """The script where there is no GPU, pip has no settings, and the index answers with PAGE."""

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/cpu/torch/" else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    spec = importlib.util.spec_from_file_location("cpu_torch", ROOT / ".ci" / "cpu_torch.py")
    spec.loader.exec_module(script := importlib.util.module_from_spec(spec))
    for name in [name for name in os.environ if name.startswith("PIP_") or name == "FROM"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(script, "INDEX", f"http://127.0.0.1:{server.server_port}/cpu")
    monkeypatch.setattr(script, "DEVICES", (str(tmp_path / "nvidia*"),))
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr(script.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(script.sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("# versions\ntorch==2.13.0\ntorchvision==1\n")
    yield script
    server.shutdown()
    server.server_close()


def test_on_linux_without_a_gpu_torch_is_the_cpu_build(cpu_torch, capsys):
    cpu_torch.main()
    said = capsys.readouterr()
    assert said.out == f"--extra-index-url={cpu_torch.INDEX}\n"
    assert (
        said.err
        == "No NVIDIA GPU here: torch comes as its CPU build. PIP_EXTRA_INDEX_URL decides otherwise.\n"
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("PIP_INDEX_URL", "http://there"),
        ("PIP_EXTRA_INDEX_URL", "http://there"),
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", "there"),
        ("FROM", "a stick"),
    ],
)
def test_whoever_says_where_packages_come_from_is_left_alone(cpu_torch, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    cpu_torch.main()
    assert capsys.readouterr() == ("", "")


def test_so_is_a_file_of_pips(cpu_torch, monkeypatch, capsys, tmp_path):
    (tmp_path / "pip.conf").write_text("[install]\nextra-index-url = http://there\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    cpu_torch.main()
    assert capsys.readouterr() == ("", "")


def test_where_the_index_lacks_that_version_or_does_not_answer_nothing_is_different(
    cpu_torch, capsys, tmp_path
):
    (tmp_path / "constraints.txt").write_text("torch==2.13\n")
    cpu_torch.main()
    cpu_torch.INDEX = "http://127.0.0.1:9/cpu"
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    cpu_torch.main()
    assert capsys.readouterr() == ("", "")


def test_with_a_gpu_or_elsewhere_nothing_is_different(cpu_torch, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as other:
        other.setattr(cpu_torch.sys, "platform", "darwin")
        cpu_torch.main()
    with monkeypatch.context() as other:
        other.setattr(cpu_torch.shutil, "which", lambda name: f"/usr/bin/{name}")
        cpu_torch.main()
    (tmp_path / "nvidia0").touch()
    cpu_torch.main()
    assert capsys.readouterr() == ("", "")
