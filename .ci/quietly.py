"""Runs an installation for the Makefile: one line of progress, and the command's own words only where it fails.

    python .ci/quietly.py WHAT LOG COMMAND...

WHAT begins a sentence, such as "Installing the course into .venv". All that the command says is kept in the file LOG.
Needs nothing but Python, since it runs before anything is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

SHOWN = 30  # lines of the log, where the command failed
SHOWN_COLUMNS = 200  # of the line in a log; pip names all that it installs in one


def main(what: str, log: str, *command: str) -> int:
    """Run the command; returns its exit status, or 130 where it was stopped by Ctrl-C."""
    sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    line = Line(what)
    with open(log, "wb") as said:
        # no terminal to ask on: nothing can wait for an answer
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=env
        )
    try:
        while child.poll() is None:
            line.show(duration(time.monotonic() - began), last_lines(log, 1))
            wait(child, 0.5)
    except KeyboardInterrupt:  # Ctrl-C reaches the command too, and it may tidy up
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end(child)
        line.end(f"{what}: stopped.")
        return 130
    if child.returncode == 0:
        line.end(f"{what}: done in {duration(time.monotonic() - began)}.")
        return 0
    line.end(f"{what} failed. The last it said:\n")
    print("\n".join(f"    {text}" for text in last_lines(log, SHOWN)))
    print(f"\nAll of it is in {log}.")
    return child.returncode if child.returncode > 0 else 1


class Line:
    """On a terminal one line that is drawn over and over; in a log one at the start, one a minute, and one at the end."""

    def __init__(self, what: str):
        self.what, self.terminal, self.next = what, sys.stdout.isatty(), time.monotonic() + 60
        if not self.terminal:
            print(f"{what} ...", flush=True)

    def show(self, passed: str, last: list[str]) -> None:
        text = ", ".join([self.what, passed, *last])
        if self.terminal:
            columns = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:columns]:<{columns}}", end="", flush=True)
        elif time.monotonic() >= self.next:
            self.next += 60
            print(text[:SHOWN_COLUMNS], flush=True)

    def end(self, text: str) -> None:
        if self.terminal:
            print(f"\r{' ' * (shutil.get_terminal_size().columns - 1)}\r", end="")
        print(text, flush=True)


def last_lines(log: str, count: int) -> list[str]:
    """The last lines of the log that say something, without what a terminal would obey."""
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 20_000))
        text = file.read().decode("utf-8", "replace")
    lines = ("".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines())
    return [line for line in lines if line.strip()][-count:]


def duration(seconds: float) -> str:
    """Such as 0:07 or 12:30."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def wait(child: subprocess.Popen, seconds: float) -> None:
    """Wait for the command to end, but not longer than that."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def end(child: subprocess.Popen) -> None:
    """End a command that has been interrupted: it has ten seconds to end by itself."""
    wait(child, 10)
    for ask in (child.terminate, child.kill):
        if child.poll() is None:
            ask()
            wait(child, 5)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:  # before there was anything to stop
        sys.exit(130)
