"""Clicks that reach the kernel while a cell runs; Jupyter would keep them until the cell has ended."""

import queue


class Clicks:
    """Lets clicks on `button`, which is shown already, through to the kernel: call `take` now and then, and `close` in the end.

    ipykernel 6 (Colab) can be asked for waiting messages between two steps; jupyter-ui-poll does that. From 7.4 on ipykernel has
    threads of its own for messages (subshells, github.com/jupyter/enhancement-proposals/pull/91), and a widget's messages can be sent
    to one of them. On kernels between the two the button is disabled and says what to do instead.
    """

    def __init__(self, button):
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
            button.disabled, button.description = True, "To stop: interrupt the kernel"

    def take(self) -> None:
        if self.polling:
            self.poll(10)

    def close(self) -> None:
        if self.polling:
            self.polling.__exit__(None, None, None)


def subshell(kernel) -> str:
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
