"""What a reader does in a page, the same in JupyterLab and in classic Notebook, by keyboard and by mouse."""

import re
from pathlib import Path

import nbformat


def write_notebook(path: Path, sources: list[str]) -> None:
    """Write a notebook of code cells, none of which has run."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


class LabPage:
    """A notebook in JupyterLab."""

    path = "/lab/tree/notebooks/{name}?token={token}&reset"
    scrolls = ".jp-WindowedPanel-outer"

    def __init__(self, page):
        self.page = page

    def wait_until_ready(self) -> None:
        self.wait_until_idle()
        self.page.wait_for_timeout(2000)  # the first "idle" may be from before the kernel was asked anything

    def wait_until_idle(self, seconds: float = 120) -> None:
        selector = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
        self.page.wait_for_selector(selector, timeout=1000 * seconds)

    def run_all(self) -> None:
        """Run all cells; again where nothing came of it: a kernel that is still connecting takes no cells, and JupyterLab does not say so."""
        for _ in range(5):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.locator('li[data-command="runmenu:run-all"]').click()
            for _ in range(40):
                self.page.wait_for_timeout(500)
                if self.page.locator(
                    ".jp-InputPrompt, .jp-OutputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")
                ).count():
                    return
        raise AssertionError("no cell has run")


class ClassicPage:
    """A notebook in classic Notebook 6.5."""

    path = "/notebooks/notebooks/{name}?token={token}"
    scrolls = "#site"

    def __init__(self, page):
        self.page = page

    def wait_until_ready(self) -> None:
        ready = (
            "() => window.Jupyter?.notebook?.kernel?.is_connected() && Jupyter.notebook.kernel.widget_manager"
        )
        self.page.wait_for_function(ready, timeout=60_000)
        # ipywidgets 7 then asks the kernel for older widgets, gives up after four seconds, and loses what is made meanwhile
        self.page.wait_for_timeout(7000)

    def wait_until_idle(self, seconds: float = 120) -> None:
        idle = "() => !document.querySelector('.code_cell.running') && !Jupyter.notebook.kernel_busy"
        self.page.wait_for_function(idle, timeout=1000 * seconds)

    def run_all(self) -> None:
        self.page.evaluate("Jupyter.notebook.execute_all_cells()")


class Reader:
    """Someone at a notebook. `by` says what they use: "keyboard" or "mouse"."""

    def __init__(self, front_end, by: str):
        self.front_end, self.page, self.by = front_end, front_end.page, by

    def run_all(self, seconds: float = 180) -> None:
        self.front_end.run_all()
        self.page.wait_for_timeout(500)
        self.front_end.wait_until_idle(seconds)
        self.page.wait_for_timeout(1500)  # widgets draw themselves after the kernel has answered

    def control(self, role: str, name: str):
        """The widget with that label, brought into view."""
        found = self.page.get_by_role(role, name=name, exact=True).last
        found.wait_for(state="attached", timeout=300_000)  # a busy machine is slow, and no failure
        found.scroll_into_view_if_needed()
        return found

    def press(self, role: str, name: str) -> None:
        """Press a button."""
        button = self.control(role, name)
        if self.by == "mouse":
            button.click()
        else:
            self.tab_to(button)
            self.page.keyboard.press("Enter")

    def type(self, name: str, text: str, role: str = "textbox") -> None:
        """Replace what stands in a field, and leave it."""
        field = self.control(role, name)
        if self.by == "mouse":
            field.click(click_count=3)
        else:
            self.tab_to(field)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Tab")

    def tab_to(self, control, presses: int = 40) -> None:
        """Reach a control of a widget by pressing Tab, from wherever the focus is, then from the widget's first control."""
        for _ in range(2):
            for _ in range(presses):
                if control.evaluate("control => control === document.activeElement"):
                    return
                if not self.page.evaluate("() => !!document.activeElement.closest('.jupyter-widgets')"):
                    break
                self.page.keyboard.press("Tab")
            control.evaluate(FOCUS_FIRST)
        raise AssertionError(f"Tab does not reach {control}")

    def shown(self) -> str:
        """The text of all widgets."""
        return "\n".join(self.page.locator(".jupyter-widgets").all_inner_texts())

    def sees(self, pattern: str, seconds: float = 30) -> bool:
        """Whether the widgets come to show `pattern`."""
        return self.becomes(lambda text: bool(re.search(pattern, text)), seconds)

    def sees_change(self, before: str, seconds: float = 15) -> bool:
        return self.becomes(lambda text: text != before, seconds)

    def becomes(self, condition, seconds: float) -> bool:
        for _ in range(int(10 * seconds)):
            if condition(self.shown()):
                return True
            self.page.wait_for_timeout(100)
        return False

    def wait_for_text(self, pattern: str, seconds: float = 120) -> None:
        self.page.get_by_text(re.compile(pattern)).last.wait_for(state="attached", timeout=1000 * seconds)


FOCUS_FIRST = """control => {
    let top = control.closest('.jupyter-widgets');
    while (top.parentElement.closest('.jupyter-widgets')) top = top.parentElement.closest('.jupyter-widgets');
    const first = 'button:not([disabled]), input:not([disabled]), textarea, [tabindex="0"]';
    (top.matches(first) ? top : top.querySelector(first)).focus();
}"""
