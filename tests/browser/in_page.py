"""What a reader does in JupyterLab's page, for the browser tests."""


def idle(page, seconds: float = 120) -> None:
    """Wait until the kernel has nothing to do."""
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=1000 * seconds)


def run_all(page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('li[data-command="runmenu:run-all"]').click()
