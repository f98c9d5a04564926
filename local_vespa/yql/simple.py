"""The simple query language: what a person types, to the same tree as YQL (AllParser.java, AnyParser.java)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from . import ast
from .errors import YqlError
from .tokens import Tokens, tokenize

_GRAMMARS = ("all", "any", "linguistics", "near", "oNear", "phrase", "raw", "segment", "tokenize", "weakAnd", "web")
_SEPARATORS = frozenset(".,+-_^$*:{}~")


@dataclass(frozen=True)
class UserTextDefaults:
    """What a request says of its user texts: `model.type`, `model.defaultIndex`."""

    grammar: str = "weakAnd"
    default_index: str = "default"


def parse_user_text(
    text: str,
    grammar: str = "weakAnd",
    default_index: str = "default",
    is_index: Callable[[str], bool] = lambda name: False,
    annotations: ast.Annotations | None = None,
) -> ast.Node | None:
    """The tree of a text in a grammar (all, any, weakAnd, phrase, tokenize, linguistics, web, near, oNear, raw,
    segment), None where it holds no word. `is_index` says whether the `name:` of `name:word` is a field or fieldset;
    `annotations` go to every term. Raises YqlError on an unknown grammar."""
    known = {name.lower(): name for name in _GRAMMARS}
    if grammar.lower() not in known:
        raise YqlError(f"Invalid query type '{grammar}', expected one of {', '.join(_GRAMMARS)}")
    return _Parser(text, known[grammar.lower()], default_index, is_index, annotations or {}).parse()


def expand_user_input(
    tree: ast.Node, is_index: Callable[[str], bool], defaults: UserTextDefaults | None = None
) -> ast.Node:
    """The tree with each UserInput replaced by its parsed text. Raises YqlError where a text holds no word
    (`Parsing '' only resulted in NullItem.`), unless it allows that: then it is Always(False)."""
    defaults = defaults or UserTextDefaults()
    if isinstance(tree, ast.UserInput):
        index = tree.default_index or defaults.default_index
        grammar = tree.grammar or defaults.grammar
        parsed = parse_user_text(tree.text, grammar, index, is_index, tree.annotations)
        if parsed is not None:
            return parsed
        if tree.allow_empty:
            return ast.Always(False)
        raise YqlError(f"Parsing '{tree.text}' only resulted in NullItem.")
    changes: dict[str, ast.Node | tuple[ast.Node, ...]] = {}
    for entry in fields(tree):
        value = getattr(tree, entry.name)
        if isinstance(value, ast.Node):
            changes[entry.name] = expand_user_input(value, is_index, defaults)
        elif isinstance(value, tuple) and value and isinstance(value[0], ast.Node):
            changes[entry.name] = tuple(expand_user_input(child, is_index, defaults) for child in value)
    return replace(tree, **changes) if changes else tree  # type: ignore[arg-type]


class _Parser:
    """One text in one grammar. Each method reads from the tokens or leaves them where they were."""

    def __init__(
        self, text: str, grammar: str, index: str, is_index: Callable[[str], bool], annotations: ast.Annotations
    ) -> None:
        self.text, self.grammar, self.index = text, grammar, index
        self.is_index, self.annotations = is_index, annotations
        self.tokens = Tokens(tokenize(text))

    def parse(self) -> ast.Node | None:
        match self.grammar:
            case "raw" | "segment":
                return self.word(self.index, self.text) if self.text else None
            case "phrase" | "tokenize" | "linguistics":
                words = [t.text for t in self.tokens.all if t.kind in ("word", "number")]
                return self.bare(words, "phrase" if self.grammar == "phrase" else "weakAnd")
        items = list(self.items())
        positive = [node for kind, node in items if kind == "+"]
        neutral = [node for kind, node in items if kind == ""]
        negative = [node for kind, node in items if kind == "-"]
        if self.grammar == "any":
            if positive:
                matched = self.combine(positive, "all")
                top = ast.Rank(matched, tuple(neutral)) if neutral and matched else matched
            else:
                top = self.combine(neutral, "any")
        elif self.grammar == "web" and any(_is_or(node) for node in neutral):
            top = self.alternatives([node for kind, node in items if kind != "-"])
        else:
            top = self.combine([node for kind, node in items if kind != "-"], self.grammar)
        if negative:
            return ast.And((top or ast.Always(True), *(ast.Not(node) for node in negative)))
        return top

    def alternatives(self, nodes: list[ast.Node]) -> ast.Node | None:
        """`a b OR c` of the web grammar: any of the runs between the ORs."""
        runs: list[list[ast.Node]] = [[]]
        for node in nodes:
            if _is_or(node) and runs[-1]:
                runs.append([])
            else:
                runs[-1].append(node)
        matched = [self.combine(run, "all") for run in runs]
        return self.combine([node for node in matched if node is not None], "any")

    def combine(self, nodes: list[ast.Node], grammar: str) -> ast.Node | None:
        if not nodes:
            return None
        hits = self.annotations.get("targetHits", self.annotations.get("totalTargetHits"))
        if grammar == "weakAnd":
            flat = tuple(_unfold(nodes))
            return flat[0] if len(flat) == 1 else ast.WeakAnd(flat, hits, annotations=self.annotations)
        if len(nodes) == 1:
            return nodes[0]
        if grammar in ("near", "oNear"):
            words = tuple(node.text for node in _unfold(nodes) if isinstance(node, ast.Word))
            distance = self.annotations.get("distance", 2)
            return ast.Near(self.index, words, distance, grammar == "oNear", annotations=self.annotations)
        return ast.Or(tuple(nodes)) if grammar == "any" else ast.And(tuple(_unfold(nodes)))

    def bare(self, words: list[str], grammar: str) -> ast.Node | None:
        if grammar == "phrase" and len(words) > 1:
            return ast.Phrase(self.index, tuple(words), annotations=self.annotations)
        return self.combine([self.word(self.index, word) for word in words], "weakAnd")

    def word(self, index: str, text: str, match: str = "word") -> ast.Word:
        return ast.Word(index, text, match, annotations=self.annotations)

    def items(self) -> Iterator[tuple[str, ast.Node]]:
        """Each item with its sign: '-', '+' or ''."""
        while self.tokens.more():
            for sign, read in (("-", self.negative), ("+", self.positive), ("", self.item), ("", self.composite)):
                found = read()
                if found is not None:
                    yield sign, found
                    break
            else:
                self.tokens.position += 1

    def signed(self, sign: str) -> tuple[ast.Node | None, bool]:
        start = self.tokens.position
        if self.tokens.skip(sign) and not self.tokens.at(" ", spaces=False):
            node = self.item()
            number = node is not None and self.tokens.all[self.tokens.position - 1].kind == "number"
            node = node or self.composite()
            if node is not None:
                return node, number
        self.tokens.position = start
        return None, False

    def negative(self) -> ast.Node | None:
        start = self.tokens.position
        node, number = self.signed("-")
        if number and isinstance(node, ast.Word) and node.field == self.index:  # -5 is a number, not an exclusion
            self.tokens.position = start
            return None
        return node

    def positive(self) -> ast.Node | None:
        start = self.tokens.position
        while self.tokens.at("+") and self.tokens.peek(1).kind == "+":
            self.tokens.position += 1
        node, _ = self.signed("+")
        if node is None:
            self.tokens.position = start
        return node

    def composite(self) -> ast.Node | None:
        """( … ): any of the items, whatever the grammar."""
        start = self.tokens.position
        while self.tokens.skip("+"):
            pass
        if not self.tokens.skip("("):
            self.tokens.position = start
            return None
        depth, inner = 1, []
        while depth and self.tokens.more():
            token = self.tokens.next()
            depth += (token.kind == "(") - (token.kind == ")")
            if depth and token.kind in ("word", "number"):
                inner.append(self.word(self.index, token.text))
        if not inner:
            self.tokens.position = start
            return None
        return self.combine(list(inner), "any")

    def item(self) -> ast.Node | None:
        """A word, phrase or range, with `index:` before it or not."""
        start = self.tokens.position
        prefix = self.prefix()
        index = prefix or self.index
        node = self.range(index) or self.phrase(index)
        if node is None and prefix:
            while self.tokens.more() and self.tokens.peek().kind not in (" ", "word", "number"):
                self.tokens.position += 1
            node = self.phrase(index)
        if node is None:
            self.tokens.position = start
            return None
        weight = self.weight()
        return node if weight is None else replace(node, annotations={**node.annotations, "weight": weight})

    def prefix(self) -> str | None:
        """The name before a colon, if it is that of an index."""
        start, name = self.tokens.position, ""
        self.tokens.skip_spaces()
        while self.tokens.more() and self.tokens.peek().kind in ("word", "number", "_", "."):
            name += self.tokens.next().text
        if name and self.tokens.skip(":", spaces=False) and self.is_index(name):
            return name
        self.tokens.position = start
        return None

    def weight(self) -> int | None:
        start = self.tokens.position
        if not self.tokens.skip("!", spaces=False):
            return None
        if self.tokens.at("number", spaces=False):
            digits = self.tokens.next().text
            if len(digits) < 20 and int(digits) < 1 << 31:
                return int(digits)
            self.tokens.position = start  # no integer of Java's: no weight
            return None
        weight = 150
        while self.tokens.skip("!", spaces=False):
            weight += 50
        return weight

    def range(self, index: str) -> ast.Range | None:
        """[1;5], <5 or >5."""
        start = self.tokens.position
        if self.tokens.skip("["):
            low = self.number()
            if self.tokens.skip(";"):
                high = self.number()
                limit = self.number() if self.tokens.skip(";") else None
                if (low is not None or high is not None) and self.tokens.skip("]"):
                    ends = -math.inf if low is None else low, math.inf if high is None else high
                    hits = None if limit is None else int(limit)
                    return ast.Range(index, *ends, hit_limit=hits, annotations=self.annotations)
        for sign in "<>":
            self.tokens.position = start
            if self.tokens.skip(sign) and (limit := self.number()) is not None:
                ends = (-math.inf, limit) if sign == "<" else (limit, math.inf)
                return ast.Range(index, *ends, False, False, annotations=self.annotations)
        self.tokens.position = start
        return None

    def number(self) -> float | None:
        start = self.tokens.position
        sign = -1 if self.tokens.skip("-") else 1
        if not self.tokens.at("number"):
            self.tokens.position = start
            return None
        digits = self.tokens.next().text
        if self.tokens.at(".", spaces=False) and self.tokens.peek(1).kind == "number":
            self.tokens.position += 1
            digits += "." + self.tokens.next().text
        if "." not in digits and len(digits) < 20:
            return sign * int(digits)
        value = float(digits)
        return sign * (int(value) if value.is_integer() else value)

    def phrase(self, index: str) -> ast.Node | None:
        """A word; words in quotes (a phrase); or words joined by other than spaces (all of them)."""
        tokens, start = self.tokens, self.tokens.position
        quoted = phrased = tokens.skip_quotes()
        words: list[str] = []
        before = after = False
        while tokens.more():
            starred = tokens.skip("*")
            if not words:
                before = starred
            if tokens.skip_quotes():
                quoted = not quoted
            sign = ""
            if not words and not quoted and tokens.at("-") and tokens.peek(1).kind == "number":
                sign = "-" if tokens.skip("-") else ""
            if tokens.at("word") or tokens.at("number"):
                words.append(sign + tokens.next().text)
            else:
                if tokens.skip_quotes():
                    quoted = not quoted
                if quoted and tokens.more():
                    tokens.position += 1
                    continue
                break
            if len(words) == 1:
                after = tokens.skip("*", spaces=False)
            phrased = phrased or (quoted and len(words) > 1)
            if not quoted and tokens.at("quote"):
                break
            skipped = self.to_next_word(quoted)
            if not skipped and tokens.skip_quotes(spaces=False):
                quoted = not quoted
            if not skipped and not quoted:
                break
            if quoted and tokens.skip_quotes():
                break
        if not words:
            tokens.position = start
            return None
        if len(words) > 1:
            if phrased:
                return ast.Phrase(index, tuple(words), annotations=self.annotations)
            return ast.And(tuple(self.word(index, word) for word in words))
        match = {(True, True): "substring", (False, True): "prefix", (True, False): "suffix"}.get(
            (before, after), "word"
        )
        return self.word(index, words[0], match)

    def to_next_word(self, quoted: bool) -> bool:
        """Skips what may stand between the words of a phrase; whether a word follows at once."""
        tokens = self.tokens
        skippable = _SEPARATORS | {"(", ")"} if quoted else _SEPARATORS
        while tokens.more() and tokens.peek().kind in skippable:
            tokens.position += 1
        return tokens.more() and tokens.peek().kind in ("word", "number")


def _is_or(node: ast.Node) -> bool:
    return isinstance(node, ast.Word) and node.text == "OR"


def _unfold(nodes: list[ast.Node]) -> Iterator[ast.Node]:
    """Nodes, with those of a plain And (words joined by hyphens) in its place."""
    for node in nodes:
        if isinstance(node, ast.And) and not any(isinstance(child, ast.Not) for child in node.children):
            yield from node.children
        else:
            yield node
