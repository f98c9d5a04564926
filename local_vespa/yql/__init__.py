"""YQL and the simple query language, from text to a tree.

    query = parse_yql("select * from product where userInput(@q)", {"q": "red dress"})
    tree = expand_user_input(query.where, fields_of_a_schema)

Texts of parameters become leaves of the tree and are never pasted into YQL. YqlError is an error 400, code 4.
"""

from .ast import *  # noqa: F403  every node is public
from .errors import YqlError
from .languages import ENGLISH, UNKNOWN
from .parse import Given, parse_yql
from .raw import least_items
from .simple import Grammar, QueriedField, UserTextDefaults, expand_user_input, loosened, parse_user_text
from .tokens import Whole

__all__ = [
    "ENGLISH",
    "UNKNOWN",
    "Given",
    "Grammar",
    "QueriedField",
    "UserTextDefaults",
    "Whole",
    "YqlError",
    "expand_user_input",
    "least_items",
    "loosened",
    "parse_user_text",
    "parse_yql",
]  # and the nodes
