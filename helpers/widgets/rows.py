"""What widgets ask of the rows they are given."""

from helpers.errors import CourseError


def check_rows(rows: list[dict], keys: tuple[str, ...], label: str, source: str) -> None:
    """Refuse rows that lack one of `keys`.

    Args:
        label: what to call a row, with {} for its index, such as "runs[{}]".
        source: a sentence that says where such rows come from.
    Raises:
        CourseError: names the first such row and what it lacks.
    """
    for index, row in enumerate(rows):
        lacking = [key for key in keys if key not in row]
        if lacking:
            raise CourseError(f"{label.format(index)} lacks {', '.join(lacking)}. {source}")
