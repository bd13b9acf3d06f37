"""What several widgets share: controls and how they look, what is asked of rows, clicks while a cell runs."""

import math
import queue
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from helpers.errors import CourseError


def choice(description: str, options: list) -> widgets.ToggleButtons:
    """One of several options. No dropdown: in JupyterLab the arrow keys leave a dropdown for the next cell."""
    return widgets.ToggleButtons(description=description, options=options)


def place_field(description: str, last: int = 1) -> widgets.BoundedIntText:
    """A field for a place from 1 to `last`. No slider: the core slider's handle has no name that a screen reader could say."""
    return widgets.BoundedIntText(description=description, value=1, min=1, max=last)


def text_field(kind: type, description: str, **settings: Any) -> widgets.Text | widgets.Textarea:
    """A field for a text, which arrives when its writer leaves the field: each is one that somebody meant, never half a word."""
    return kind(description=description, continuous_update=False, **settings)


def back_and_on(
    go: Callable[[int], None], back: str = "Previous", on: str = "Next"
) -> tuple[widgets.Button, ...]:
    """Two buttons, which call `go` with -1 and with 1."""
    buttons = widgets.Button(description=back), widgets.Button(description=on)
    buttons[0].on_click(lambda button: go(-1))
    buttons[1].on_click(lambda button: go(1))
    return buttons


def rest_at_ends(buttons: tuple[widgets.Button, ...], place: int, first: int, last: int) -> None:
    """Let each of `back_and_on` rest where there is nothing further on its side."""
    buttons[0].disabled, buttons[1].disabled = place == first, place == last


def folding(name: str, *shown: widgets.Widget) -> list[widgets.Widget]:
    """A button that shows and hides what follows it, hidden at first. No accordion: its headers cannot be reached by keyboard."""
    button = widgets.ToggleButton(description=name, value=False)

    def fold(change: dict | None = None) -> None:
        for part in shown:
            part.layout.display = None if button.value else "none"

    button.observe(fold, "value")
    fold()
    return [button, *shown]


def check_rows(rows: list[dict], keys: tuple[str, ...], label: str, source: str) -> None:
    """Refuse rows that lack one of `keys`.

    Args:
        label: what to call a row, with {} for its index, such as "runs[{}]".
        source: a sentence that says where such rows come from.
    Raises:
        CourseError: names the first such row and what it lacks.
    """
    for index, given in enumerate(rows):
        lacking = [key for key in keys if key not in given]
        if lacking:
            raise CourseError(f"{label.format(index)} lacks {', '.join(lacking)}. {source}")


def text_of(value: object) -> str:
    """A text of a sample; pandas reads an empty one from a CSV file as NaN."""
    return value if isinstance(value, str) else ""


def number_of(row: dict, name: str, where: str, source: str) -> float:
    """The number `name` of a row, possibly infinite or NaN; a CSV file has an empty text for NaN.

    Raises:
        CourseError: it is no number.
    """
    try:
        return float("nan" if row[name] == "" else row[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise CourseError(
            f"{where} has {row[name]!r:.40} as its {name}: expected a number. {source}"
        ) from error


def finite(row: dict, name: str, where: str, source: str) -> float:
    """The number `name` of a row, where infinity and NaN have no meaning.

    Raises:
        CourseError: it is no finite number.
    """
    value = number_of(row, name, where, source)
    if not math.isfinite(value):
        raise CourseError(f"{where} has {row[name]!r:.40} as its {name}: expected a finite number. {source}")
    return value


class Clicks:
    """Lets clicks on a button reach the kernel while a cell runs; Jupyter would keep them until the cell has ended.

    Call `take` now and then, and `close` in the end. ipykernel 6 (Colab) can be asked for waiting messages between two steps;
    jupyter-ui-poll does that. From 7.4 on ipykernel has threads of its own for messages (subshells,
    github.com/jupyter/enhancement-proposals/pull/91), and a widget's messages can be sent to one of them.

    Args:
        button: is shown already.
    Raises:
        RuntimeError: kernels between the two can do neither.
    """

    def __init__(self, button: widgets.Button):
        from IPython import get_ipython

        kernel = get_ipython().kernel
        self.polling = None
        if hasattr(kernel, "do_one_iteration"):
            from jupyter_ui_poll import ui_events

            self.polling = ui_events()
            self.poll = self.polling.__enter__()
        elif hasattr(button.comm, "_reply_subshell_for"):
            button.comm._reply_subshell_id = subshell(kernel)
        else:
            raise RuntimeError("this kernel takes no clicks while a cell runs")

    def take(self) -> None:
        """Let waiting clicks through."""
        if self.polling:
            self.poll(10)

    def close(self) -> None:
        """End the asking; from then on clicks wait as Jupyter has them wait."""
        if self.polling:
            self.polling.__exit__(None, None, None)


def subshell(kernel: object) -> str:
    """The id of a subshell for clicks: one for each kernel, made in the control thread, which alone may make them."""
    if not hasattr(kernel, "course_subshell"):
        made: queue.Queue = queue.Queue()

        def make() -> None:
            socket = kernel.shell_channel_thread.manager.control_to_shell_channel.from_socket
            socket.send_json({"type": "create"})
            made.put(socket.recv_json()["subshell_id"])

        kernel.control_thread.io_loop.add_callback(make)
        kernel.course_subshell = made.get(timeout=10)
    return kernel.course_subshell
