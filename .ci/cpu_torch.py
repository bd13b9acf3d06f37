"""For the Makefile: where there is no NVIDIA GPU on Linux, prints pip's option that gets torch as its CPU build, else nothing.

PyPI's torch for Linux brings gigabytes for NVIDIA's cards. Whoever tells pip where packages come from is left alone. What is done
is said in one line, on stderr. Needs nothing but Python and pip, since it runs before anything is installed.
"""

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.request

INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 3  # for the index to answer
DEVICES = ("/dev/nvidia*", "/dev/dxg")  # the second is the card under Windows' own Linux
SOURCES = (
    "index-url",
    "extra-index-url",
    "no-index",
    "find-links",
)  # pip's settings of where packages come from


def main() -> None:
    """Print the option, where it is of use."""
    if os.environ.get("FROM") or not cpu_only() or chosen():
        return
    if offers(pinned()):
        print(
            "No NVIDIA GPU here: torch comes as its CPU build. PIP_EXTRA_INDEX_URL decides otherwise.",
            file=sys.stderr,
        )
        print(f"--extra-index-url={INDEX}")


def cpu_only() -> bool:
    """Whether this is a Linux machine without a trace of an NVIDIA GPU."""
    linux = sys.platform == "linux" and platform.machine() == "x86_64"
    return linux and not shutil.which("nvidia-smi") and not any(map(glob.glob, DEVICES))


def chosen() -> bool:
    """Whether a variable or a file of pip's says where packages come from; also where pip cannot say."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    names = re.findall(r"^[^=]*?\.([\w-]+)=", listed.stdout, re.MULTILINE)
    return listed.returncode != 0 or any(name.lower().replace("_", "-") in SOURCES for name in names)


def pinned() -> str:
    """The version of torch in constraints.txt."""
    with open("constraints.txt", encoding="utf-8") as file:
        return re.search(r"^torch==(\S+)", file.read(), re.MULTILINE)[1]


def offers(version: str) -> bool:
    """Whether the index answers in time, and has that version."""
    answers = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{INDEX}/torch/", timeout=SECONDS) as page:
                answers.append(f"torch-{version}+cpu-" in page.read().decode().replace("%2B", "+"))
        except (OSError, ValueError):
            pass

    # A thread, because looking up a host name heeds no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return any(answers)


if __name__ == "__main__":
    main()
