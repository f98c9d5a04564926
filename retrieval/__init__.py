"""Read from Vespa: query vectors, behaviour, recall queues; and the service that does it over HTTP.

    from retrieval import Facet, Filter, Searcher

Import order, nothing imports upwards: service > rules > searcher > users, profiles, interleave, results > backend,
filters, behaviour, embed_producer > query_text, item_vectors, errors.
"""

from retrieval.errors import DeadlineExceeded, Degraded, SearchError, Unavailable, kind_of
from retrieval.filters import Facet, Filter, Sort
from retrieval.history.behaviour import Event
from retrieval.profiles import RankProfile
from retrieval.results import Bucket, Coverage, Explanation, Fallback, Hit, SearchResult
from retrieval.searcher import AsyncSearcher, QueryVector, Searcher, SearchRequest

__all__ = [
    "AsyncSearcher",
    "Bucket",
    "Coverage",
    "DeadlineExceeded",
    "Degraded",
    "Event",
    "Explanation",
    "Facet",
    "Fallback",
    "Filter",
    "Hit",
    "QueryVector",
    "RankProfile",
    "SearchError",
    "SearchRequest",
    "SearchResult",
    "Searcher",
    "Sort",
    "Unavailable",
    "kind_of",
]
