"""One kind of error for everything a reader can put right."""

from collections.abc import Iterator


class CourseError(ValueError):
    """Says what was wrong, what was expected and what to do, in the reader's terms."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
