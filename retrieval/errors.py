"""What can go wrong with a search, in four kinds: the caller's, the backend is unavailable, too late, in part.

    InputError           caller       the request is wrong: another try changes nothing
    Unavailable          unavailable  the backend does not answer, or not as Vespa does: try again later
    DeadlineExceeded     timeout      no answer within the deadline
    Degraded             degraded     an answer of fewer documents than the caller wants to accept

All are `InputError`s, so that a command ends with one line and exit code 2; `kind_of` tells them apart.
"""

from __future__ import annotations

from mrse_model.errors import InputError


class SearchError(InputError):
    """The backend's fault, not the caller's."""

    kind = "unavailable"


class Unavailable(SearchError):
    """There is no answer, or what answers is overloaded, broken or no Vespa."""


class DeadlineExceeded(SearchError):
    """No answer within the deadline."""

    kind = "timeout"


class Degraded(SearchError):
    """An answer, but from fewer documents than `min_coverage` asks for. coverage: the share of documents, 0 to 1."""

    kind = "degraded"

    def __init__(self, problem: str, coverage: float, fix: str | None = None) -> None:
        super().__init__(problem, fix=fix)
        self.coverage = coverage


def kind_of(error: Exception) -> str:
    """caller, unavailable, timeout or degraded.

    >>> kind_of(InputError("the query is blank"))
    'caller'
    >>> kind_of(DeadlineExceeded("no answer in 1 s"))
    'timeout'
    """
    return error.kind if isinstance(error, SearchError) else "caller"
