"""A query, ready to run: all that a request asks, resolved against one application. The planner makes it, the executor
runs it, and neither the executor nor a renderer sees the request's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import yql
from ..errors import QueryError
from ..grouping import DEFAULT_LIMITS, GroupingRequest, Limits
from ..package.rank_profiles import Profile
from ..tensors import Tensor
from ..yql.languages import ENGLISH
from .sorting import Criterion


@dataclass(frozen=True)
class TypePlan:
    """What is searched in one document type: `profile` has the counts and limits that the request gives."""

    schema: str
    profile: Profile


@dataclass(frozen=True)
class Presentation:
    """How the result is shown: the fields that are chosen (none: all), the summary class, the format of tensors."""

    fields: frozenset[str] = frozenset()
    summary: str = "default"
    tensors: str = "short"
    timing: bool = False
    trace: bool = False


@dataclass(frozen=True)
class Plan:
    """A query. `refusals` are what document types refused that are not in `types`; `inputs` the tensors of
    query(name)."""

    where: yql.Node
    types: tuple[TypePlan, ...]
    profile: str
    query_profile: str
    offset: int
    hits: int
    refusals: tuple[QueryError, ...] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    sorting: tuple[Criterion, ...] = ()
    grouping: tuple[GroupingRequest, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    presentation: Presentation = Presentation()
    timeout: float = 10.0  # seconds
    soft: float | None = 0.7  # the share of the time after which what was ranked is the answer; None: all or nothing
    language: str = ENGLISH
    doubts: tuple[QueryError, ...] = ()  # errors that go with the answer

    @property
    def wanted(self) -> int:
        """How many of the best hits it needs."""
        return self.offset + self.hits
