"""One kind of error for everything a reader can put right."""


class CourseError(ValueError):
    """Says what was wrong, what was expected and what to do, in the reader's terms."""


def chain(error: BaseException | None):
    """An error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
