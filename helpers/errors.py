"""One kind of error for everything a reader can put right."""


class CourseError(ValueError):
    """Says what was wrong, what was expected and what to do, in the reader's terms."""
