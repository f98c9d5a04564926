"""Full disks, folders that cannot be written, files that are not there: which errors of which libraries mean that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from mrse_model.errors import InputError

FULL = "Free some space, or write to another disk; then run the same command again"
WORDS_OF = {
    FULL: ("No space left on device", "File too large", "Disk quota exceeded", "database or disk is full"),
    "Give a folder that you may write to": (
        "Read-only file system", "Permission denied", "Operation not permitted", "attempt to write a readonly database",
    ),
    "Check the path": ("No such file or directory", "Not a directory", "Is a directory", "File name too long"),
    "See whether its folder is there, can be written and has space left": (
        "unable to open database file", "disk I/O error", "Input/output error",
    ),
}  # fmt: skip
QUOTED = re.compile(r"""["'](/[^"']*|[^"' ]*/[^"']*)["']""")  # a path in a message


def storage_problem(error: BaseException) -> InputError | None:
    """The line about the disk or the path that an error, or the one that it came from, is about; None for others.

    Python's own errors name their file; those of SQLite, Arrow, ONNX and PyTorch are known by their words.
    """
    for one in _chain(error):
        if isinstance(one, OSError) and one.filename is not None:
            return InputError(one.strerror or str(one), file=os.fsdecode(one.filename), fix=_fix(one.strerror or ""))
        text = f"{os.strerror(one.errno)} {one}" if isinstance(one, OSError) and one.errno else str(one)
        for fix, words in WORDS_OF.items():
            for problem in words:
                if problem in text:
                    path = QUOTED.search(str(one))
                    return InputError(problem, file=path[1] if path else None, fix=fix)
    return None


def _fix(problem: str) -> str | None:
    return next((fix for fix, words in WORDS_OF.items() if problem in words), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
