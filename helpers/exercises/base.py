"""What every check uses. A check prints which mistake was made, returns True or False, and never raises.

An exercise that was not attempted (the answer is still None or `...`) is no mistake: it says so, and the notebook runs on.
"""


def unattempted(answer) -> bool:
    """Whether the reader has left the answer as it was."""
    return answer is None or answer is ...


def report(mistake: str | None, praise: str = "Correct.") -> bool:
    """Print the mistake, or the praise where there is none."""
    print(f"Not yet: {mistake}" if mistake else praise)
    return mistake is None


def not_attempted() -> bool:
    """Say that there is nothing to check yet."""
    print("Not attempted yet.")
    return False


def call(function, *arguments):
    """(result, None), or (None, what went wrong) where the answer is no function or the reader's code raises."""
    if not callable(function):
        return None, f"the answer should be a function; yours is {type(function).__name__}."
    try:
        return function(*arguments), None
    except Exception as error:  # whatever the reader's code raises is a mistake to name, not to stop at
        return None, f"your function raised {type(error).__name__}: {error}"


def close(given, expected, tolerance: float = 1e-4) -> bool:
    """Whether two lists of numbers are equally long and agree, up to rounding."""
    return len(given) == len(expected) and all(
        abs(a - b) <= tolerance for a, b in zip(given, expected, strict=True)
    )


def number_mistake(answer, right: float, mistakes: dict[float, str], tolerance: float) -> str | None:
    """What is wrong with a number, or None where it is right."""
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        return f"expected a number; yours is {answer!r:.60}."
    if abs(answer - right) <= tolerance:
        return None
    named = (message for wrong, message in mistakes.items() if abs(answer - wrong) <= tolerance)
    return next(named, f"{answer:g} is not it. Put it into the equation and see what comes out.")
