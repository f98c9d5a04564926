"""Ranking expressions: parsed, checked, and evaluated in numpy for all candidates at once.

node = parse_expression("sum(query(q) * attribute(embedding))")
features_of(node)                                   # {Reference("query", ("q",)), …}: what must exist at deploy
infer_type(node, type_of)                           # the tensor type, or RankingError
evaluator = Evaluator(functions, resolve, n)        # n candidates; resolve(reference) -> Value
evaluator.evaluate(node).scores(n)                  # float64 [n]
"""

from .ast import Function, RankingError, RankingNode, Reference, Unsupported
from .evaluate import Evaluator
from .features import features_of
from .parse import parse_expression, parse_feature
from .types import infer_type
from .value import Value, string_number

__all__ = [
    "Evaluator",
    "Function",
    "RankingError",
    "RankingNode",
    "Reference",
    "Unsupported",
    "Value",
    "features_of",
    "infer_type",
    "parse_expression",
    "parse_feature",
    "string_number",
]
