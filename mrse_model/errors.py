"""Errors that the user can fix: one line that says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class InputError(ValueError):
    """Bad input. Commands print it as one line and exit with 2; anything else that escapes is a bug.

    Args:
        problem: what is wrong, in one sentence without a full stop at its end.
        file: the file at fault. row: the row in it, counted from 0. field: the column or setting.
        fix: what would be right, or the next command.

    >>> print(InputError("it is empty", file="items.parquet", row=7, field="title", fix="Every item needs one"))
    items.parquet, row 7, field title: it is empty. Every item needs one.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem, self.file, self.row, self.field, self.fix = problem, file, row, field, fix
        place = [str(file)] if file is not None else []
        if row is not None:
            place.append(f"row {row}")
        if field is not None:
            place.append(f"field {field}")
        line = (", ".join(place) + ": " if place else "") + problem.rstrip(".") + "."
        if fix:
            line += " " + (fix if fix.endswith("?") else fix.rstrip(".") + ".")
        super().__init__(" ".join(line.split()))


class InputErrors(InputError):
    """Several problems of one input: the first one's place, and a line for each."""

    def __init__(self, errors: Sequence[InputError]) -> None:
        first = errors[0]
        super().__init__(first.problem, file=first.file, row=first.row, field=first.field, fix=first.fix)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def raise_all(errors: Iterable[InputError]) -> None:
    """Raises the errors, if there are any, as one."""
    found = list(errors)
    if found:
        raise found[0] if len(found) == 1 else InputErrors(found)


class MissingExtra(InputError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", fix=f'Run: pip install "mrse-vespa[{extra}]"')
