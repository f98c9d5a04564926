"""The simple query language: what a shopper types, to the same tree as YQL.

A port of Vespa's parsers (StructuredParser, SimpleParser, AllParser, AnyParser, WebParser, TokenizeParser and
LinguisticsParser.java), method by method, so that any text means here what it means there: `t-shirt` is t AND shirt,
`children's` children AND s, `red*` a prefix, `"red dress"` a phrase, `-red` an exclusion.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

from ..errors import unsupported
from . import ast
from .errors import YqlError
from .languages import UNKNOWN, is_without_spaces, language_of
from .tokens import Token, Tokens, Whole, split_words, tokenize

MAX_NESTING = 100
MAX_NAME = 1000  # tokens; no field has a longer name
_COMPOSITES = ("and", "or", "phrase", "weakAnd", "near", "oNear")
_SYNTAXES = ("none", "simple", "web")


@dataclass(frozen=True)
class Grammar:
    """How a text is read (QueryType.java): how its terms are combined, what signs mean in it, and whether its words are
    split as documents are (`linguistics`). Raises YqlError for a value that does not exist or that this engine does not
    do."""

    composite: str = "weakAnd"
    syntax: str = "simple"
    tokenization: str = "internal"

    def __post_init__(self) -> None:
        for value, known in (
            (self.composite, _COMPOSITES),
            (self.syntax, (*_SYNTAXES, "raw", "segment")),
            (self.tokenization, ("internal", "linguistics")),
        ):
            if value not in known:
                raise YqlError(unsupported(f"'{value}' in a query type"))
        if self.tokenization == "linguistics" and self.syntax in ("simple", "web"):
            raise YqlError("Linguistics tokenization can only be combined with syntax none")

    @classmethod
    def named(cls, name: str) -> Grammar:
        """The grammar of a name in lower or upper case."""
        found = _GRAMMARS_IN_LOWER_CASE.get(name.lower())
        if name.lower() in ("advanced", "programmatic", "select", "yql"):
            raise YqlError(unsupported(f"the query type '{name}'"))
        if found is None:
            raise YqlError(f"Invalid query type '{name}', expected one of {', '.join(_GRAMMARS)}")
        return found

    def changed(self, values: Mapping[str, object], prefix: str) -> Grammar:
        """With the parts that annotations or parameters say: `<prefix>composite` and so on."""
        parts = ("composite", "syntax", "tokenization")
        given = {part: str(value) for part in parts if (value := values.get(prefix + part)) is not None}
        return replace(self, **given) if given else self


_GRAMMARS: Mapping[str, Grammar] = {
    "all": Grammar("and"),
    "any": Grammar("or"),
    "linguistics": Grammar("weakAnd", "none", "linguistics"),
    "near": Grammar("near"),
    "oNear": Grammar("oNear"),
    "phrase": Grammar("phrase", "none"),
    "raw": Grammar("weakAnd", "raw"),
    "segment": Grammar("weakAnd", "segment"),
    "tokenize": Grammar("weakAnd", "none"),
    "weakAnd": Grammar(),
    "web": Grammar("and", "web"),
}
_GRAMMARS_IN_LOWER_CASE = {name.lower(): grammar for name, grammar in _GRAMMARS.items()}
# Annotations of userInput that its terms inherit (AnnotationPropagator in YqlParser.java), and those of composites.
_INHERITED = frozenset({"ranked", "filter", "stem", "normalizeCase", "accentDrop", "usePositionData", "label"}) | {
    "language",
    "linguistics",  # the words are processed whatever the field is
}
_SEPARATORS = frozenset(".,+-_^$*:{}~")


@dataclass(frozen=True)
class QueriedField:
    """A field or fieldset that a text may name: `text` where its words are split and stemmed, `whole` how a value of it
    ends where values are matched as a whole."""

    text: bool = True
    whole: Whole | None = None


Fields = Callable[[str], QueriedField | None]


@dataclass(frozen=True)
class UserTextDefaults:
    """What a request says of its user texts: `model.type`, `model.defaultIndex`, `model.language`."""

    grammar: Grammar = Grammar()
    default_index: str = "default"
    language: str | None = None


def parse_user_text(
    text: str,
    grammar: str | Grammar = "weakAnd",
    default_index: str = "default",
    queried: Fields = lambda name: None,
    annotations: ast.Annotations | None = None,
    language: str | None = None,
) -> ast.Node | None:
    """The tree of a text in a grammar (all, any, weakAnd, phrase, tokenize, linguistics, web, near, oNear, raw,
    segment), None where it holds no word (phrase, tokenize and linguistics then give a node without children).
    `queried` says of the `name:` of `name:word` what field or fieldset it is; `annotations` go to the terms. In an
    unknown `language` ("und") words are not split at apostrophes. Raises YqlError on an unknown grammar."""
    if isinstance(grammar, str):
        grammar = Grammar.named(grammar)
    annotations = dict(annotations or {})
    if language is not None:
        annotations["language"] = language
    if grammar.syntax in ("raw", "segment"):
        own = {k: v for k, v in annotations.items() if not k.startswith("grammar") and k != "defaultIndex"}
        return _unparsed(text, grammar.syntax, default_index, queried, own)
    if grammar.tokenization == "linguistics":
        annotations["linguistics"] = True
    item = _parser(grammar)(text, grammar.composite, default_index, queried, language != UNKNOWN).parse()
    return None if item is None else _Tree(default_index, queried, annotations).node(item)


def expand_user_input(tree: ast.Node, queried: Fields, defaults: UserTextDefaults | None = None) -> ast.Node:
    """The tree with each UserInput replaced by its parsed text. Raises YqlError where a text holds no word
    (`Parsing '' only resulted in NullItem.`), unless it allows that: then it is Always(False)."""
    defaults = defaults or UserTextDefaults()
    if isinstance(tree, ast.UserInput):
        index = tree.default_index or defaults.default_index
        grammar = Grammar.named(tree.grammar) if tree.grammar else defaults.grammar
        grammar = grammar.changed(tree.annotations, "grammar.")
        if "grammar.profile" in tree.annotations:
            raise YqlError(unsupported("the annotation 'grammar.profile'"))
        language = _known(tree.language) or defaults.language
        parsed = parse_user_text(tree.text, grammar, index, queried, tree.annotations, language)
        if parsed is not None:
            return parsed
        if tree.allow_empty:
            return ast.Always(False)
        raise YqlError(f"Parsing '{tree.text}' only resulted in NullItem.")
    changes: dict[str, ast.Node | tuple[ast.Node, ...]] = {}
    for entry in fields(tree):
        value = getattr(tree, entry.name)
        if isinstance(value, ast.Node):
            changes[entry.name] = expand_user_input(value, queried, defaults)
        elif isinstance(value, tuple) and value and isinstance(value[0], ast.Node):
            changes[entry.name] = tuple(expand_user_input(child, queried, defaults) for child in value)
    return replace(tree, **changes) if changes else tree  # type: ignore[arg-type]


def loosened(tree: ast.Node, queried: Fields, language: str | None) -> ast.Node:
    """The tree with each phrase that the user did not write as all of its words, in languages that are written without
    spaces (CJKSearcher.java). `language` is that of the request, None if it names none."""
    children: dict[str, ast.Node | tuple[ast.Node, ...]] = {}
    match tree:
        case ast.And() | ast.Or() | ast.WeakAnd():
            children["children"] = tuple(loosened(child, queried, language) for child in tree.children)
        case ast.Not() | ast.NonEmpty():
            children["child"] = loosened(tree.child, queried, language)
        case ast.Rank():
            children["first"] = loosened(tree.first, queried, language)
            children["others"] = tuple(loosened(other, queried, language) for other in tree.others)
        case ast.Word(match="word") | ast.Phrase(explicit=False):
            texts = (tree.text,) if isinstance(tree, ast.Word) else tree.words
            known, parts = queried(tree.field), [part for text in texts for part in segments(text)]
            own = _known(tree.annotations.get("language")) or language
            if len(parts) > 1 and known is not None and known.text and is_without_spaces(own, " ".join(texts)):
                return ast.And(tuple(ast.Word(tree.field, part, annotations=tree.annotations) for part in parts))
    return replace(tree, **children) if children else tree  # type: ignore[arg-type]


def _known(tag: str | None) -> str | None:
    """The language of a tag, None for one that Vespa does not know: that of the request counts. Raises YqlError."""
    try:
        found = language_of(tag)
    except ValueError as e:
        raise YqlError(str(e)) from e
    return None if found == UNKNOWN else found


def _unparsed(text: str, syntax: str, index: str, queried: Fields, annotations: ast.Annotations) -> ast.Node | None:
    """The grammars raw and segment: the whole text is one term. Of several words segment makes a phrase; raw wants all
    of them where the field has words."""
    if not text:
        return None
    known, parts = queried(index), split_words(text)
    if syntax == "segment" and len(parts) == 1:
        return ast.Word(index, parts[0], annotations=annotations)
    if len(parts) > 1:
        if syntax == "segment":
            return ast.Phrase(index, tuple(parts), False, annotations=annotations)
        if (known is None or known.text) and annotations.get("language") != UNKNOWN:
            return ast.And(tuple(ast.Word(index, part, annotations=annotations) for part in parts))
    return ast.Word(index, text, annotations=annotations)


def segments(word: str) -> list[str]:
    """A word at its apostrophes; the whole where nothing of it is a letter or digit (SegmenterImpl.java)."""
    return split_words(unicodedata.normalize("NFKC", word)) or [word]


@dataclass(eq=False)
class _Item:
    """A node while parsing. `kind`: word, number, prefix, suffix, substring, phrase, segments (of a word: all of them),
    phraseSegment (the same within quotes), true, and, or, not, rank, weakAnd, near, oNear. A `not` has first what is
    wanted (`true` while nothing is) and then what is excluded. `index` and `weight` are those of the item and all below
    it."""

    kind: str
    text: str = ""
    children: list[_Item] = field(default_factory=list)
    whole: bool = False
    index: str | None = None
    weight: int | None = None
    explicit: bool = True

    @property
    def composite(self) -> bool:
        return self.kind in (
            "and",
            "or",
            "not",
            "rank",
            "weakAnd",
            "near",
            "oNear",
            "phrase",
            "phraseSegment",
            "segments",
        )


class _Tree:
    """Makes the tree of parsed items."""

    def __init__(self, default: str, queried: Fields, annotations: ast.Annotations) -> None:
        self.default, self.queried = default, queried
        hits = annotations.get("targetHits", annotations.get("totalTargetHits"))
        self.target_hits: int | None = hits
        self.distance: int = annotations.get("distance", 2)
        self.annotations = {k: v for k, v in annotations.items() if k in _INHERITED}

    def node(self, item: _Item, index: str | None = None, weight: int | None = None) -> ast.Node:
        """The node of an item; index and weight are those of the items above it."""
        index = item.index or index
        weight = item.weight if item.weight is not None else weight
        match item.kind:
            case "true":
                return ast.Always(True)
            case "not":
                return ast.And((self.node(item.children[0]), *(ast.Not(self.node(c)) for c in item.children[1:])))
            case "rank":
                first, *others = (self.node(child) for child in item.children)
                return ast.Rank(first, tuple(others))
            case "phrase" | "phraseSegment" | "near" | "oNear":
                return self.words(item, index or self.default, weight)
            case "and" | "segments":
                # Vespa weights the words of `children's!200`, but not those of `t-shirt!200`
                below = weight if item.kind == "segments" else None
                return ast.And(tuple(self.node(child, index, below) for child in item.children))
            case "or":
                return ast.Or(tuple(self.node(child, index) for child in item.children))
            case "weakAnd":
                return ast.WeakAnd(tuple(self.node(child, index) for child in item.children), self.target_hits)
        return self.term(item, index or self.default, weight)

    def noted(self, weight: int | None) -> ast.Annotations:
        return self.annotations if weight is None else {**self.annotations, "weight": weight}

    def words(self, item: _Item, index: str, weight: int | None) -> ast.Node:
        parts, noted = tuple(_words(item)), self.noted(weight)
        if len(parts) == 1:
            return ast.Word(index, parts[0], annotations=noted)
        if item.kind in ("phrase", "phraseSegment"):
            return ast.Phrase(index, parts, item.explicit, annotations=noted)
        return ast.Near(index, parts, self.distance, item.kind == "oNear", annotations=noted)

    def term(self, item: _Item, index: str, weight: int | None) -> ast.Term:
        if item.kind == "number":
            return self.number(item.text, index, weight)
        known = self.queried(index)
        kind = item.kind
        if (known is None or known.text) and kind != "prefix":  # StemmingSearcher makes a word of all but a prefix
            kind = "whole" if item.whole else "word"
        return ast.Word(index, item.text, kind, annotations=self.noted(weight))

    def number(self, text: str, index: str, weight: int | None) -> ast.Term:
        """A number as typed: 10, -5.5, <20, >20, [1;5], [1;5;10]."""
        annotations = self.noted(weight)
        if text[0] in "<>":
            limit = _number(text[1:])
            ends = (-math.inf, limit) if text[0] == "<" else (limit, math.inf)
            return ast.Range(index, *ends, False, False, annotations=annotations)
        if text[0] == "[":
            low, high, *limit_text = text[1:-1].split(";")
            ends = -math.inf if not low else _number(low), math.inf if not high else _number(high)
            hits = int(limit_text[0]) if limit_text and limit_text[0] else None
            return ast.Range(index, *ends, hit_limit=hits, annotations=annotations)
        return ast.Word(index, text, "whole", annotations=annotations)


def _words(item: _Item) -> Iterator[str]:
    if item.composite:
        for child in item.children:
            yield from _words(child)
    else:
        yield item.text


def _number(digits: str) -> float:
    if "." not in digits and len(digits) < 20:
        return int(digits)
    value = float(digits)
    return int(value) if value.is_integer() else value


class _Parser:
    """What all parsers share. Each method that reads an item leaves the tokens where they were if there is none."""

    def __init__(self, text: str, composite: str, default: str, queried: Fields, segmenting: bool) -> None:
        self.text, self.composite, self.default, self.queried = text, composite, default, queried
        self.segmenting = segmenting
        self.depth = 0
        self.ends: dict[int, int] = {}
        self.after_blanks: dict[int, int] = {}
        self.name_ends: dict[int, int] = {}
        self.empty: set[int] = set()  # where a group begins that holds nothing: `(+(+(` would ask twice at each level

        def whole(name: str) -> Whole | None:
            known = queried(name)
            return known.whole if known is not None else None

        self.tokens = Tokens(tokenize(text, default, whole))

    def parse(self) -> _Item | None:
        raise NotImplementedError

    def combined(self, items: list[_Item]) -> _Item:
        """Items under the composite of this grammar."""
        return _Item(self.composite, children=items)

    def segment(self, token: Token, *, quoted: bool = False) -> _Item:
        """A word; all its parts, where it has apostrophes: as a phrase within quotes."""
        if token.whole and not token.text:
            raise YqlError("The word of a word item cannot be empty")
        if token.whole:
            return _Item("word", token.text, whole=True)
        parts = segments(token.text) if self.segmenting else [token.text]
        if len(parts) == 1:
            return _Item("word", parts[0])
        return _Item("phraseSegment" if quoted else "segments", children=[_Item("word", part) for part in parts])


class _TokenizeParser(_Parser):
    """All words and numbers, whatever stands between them."""

    def parse(self) -> _Item | None:
        found = []
        for token in self.tokens.all:
            if token.kind == "word":
                found.append(self.segment(token))
            elif token.kind == "number":
                found.append(_Item("number", token.text))
        item = self.combined(found)
        item.explicit = False
        return item


class _LinguisticsParser(_Parser):
    """The words as a document's text is split, digits being numbers."""

    def parse(self) -> _Item | None:
        return self.combined([self.word(word) for word in split_words(self.text)])

    @staticmethod
    def word(word: str) -> _Item:
        if not word.isnumeric():
            return _Item("word", word)
        if not word.isdecimal():  # ½ and the like
            raise YqlError(f"'{unicodedata.normalize('NFKC', word)}' is not an int item expression")
        return _Item("number", word)


class _SimpleParser(_Parser):
    """The syntax of all, weakAnd, near and oNear: words, phrases in quotes, +wanted, -excluded, index:word,
    (any of these)."""

    def parse(self) -> _Item | None:
        wanted: list[_Item] = []
        excluded: list[_Item] = []
        while True:
            if (item := self.negative()) is not None:
                excluded.append(item)
            elif (item := self.positive() or self.item() or self.group()) is not None:
                wanted.append(item)
            else:
                self.pass_over()
            if not self.tokens.more():
                return self.result(self.combined(wanted) if wanted else None, excluded)

    def pass_over(self) -> None:
        """Passes over a token at which no item starts. Vespa tries again at each token of a run of quotes or signs, and
        finds nothing each time but at the last; so only that is tried here, or a text of quotes would take minutes."""
        kind = self.tokens.next().kind
        if kind in ("quote", "+", "-"):
            at = self.tokens.position
            while self.tokens.all[at].kind in (kind, " "):
                if self.tokens.all[at].kind == kind:
                    self.tokens.position = at
                at += 1

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Counts how deep groups lie in each other. Raises YqlError where they lie too deep (Vespa runs out of
        stack)."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise YqlError(f"The text is nested too deeply: more than {MAX_NESTING} levels")
        try:
            yield
        finally:
            self.depth -= 1

    @staticmethod
    def result(top: _Item | None, excluded: list[_Item]) -> _Item | None:
        if top is not None and top.kind in ("and", "or") and len(top.children) == 1:
            top = top.children[0]
        return _Item("not", children=[top or _Item("true"), *excluded]) if excluded else top

    # ---- signs and parentheses

    def signed(self) -> _Item | None:
        """What follows a sign: an item or a group, but not after a blank."""
        if self.tokens.at(" ", spaces=False):
            return None
        return self.item() or self.group()

    def negative(self) -> _Item | None:
        start = self.tokens.position
        item = None
        if self.tokens.skip("-") and not self.tokens.at(" ", spaces=False):
            item, explicit = self.indexed_item()
            if item is not None and item.kind == "number" and not explicit and not item.text.startswith("-"):
                item = None  # -5 is a number, not an exclusion
            elif item is None and (item := self.group()) is not None and item.kind == "or":
                item = self.combined(item.children)
        if item is None:
            self.tokens.position = start
        return item

    def positive(self) -> _Item | None:
        start = self.tokens.position
        item = self.signed() if self.tokens.skip_all("+") else None
        if item is None:
            self.tokens.position = start
        return item

    def group(self) -> _Item | None:
        """( … ): any of the items in it, whatever the grammar."""
        start = self.tokens.position
        self.tokens.skip_all("+")
        item = None
        if self.tokens.skip("(") and (inside := self.tokens.position) not in self.empty:
            with self.nested():
                item = self.any_items(False)
            if item is None:
                self.empty.add(inside)
            self.tokens.skip(")")
        if item is None:
            self.tokens.position = start
        return item

    def any_items(self, top: bool) -> _Item | None:
        """Items of which any matches; where one is signed, the others only rank (SimpleParser.anyItemsBody)."""
        start = self.tokens.position
        found: _Item | None = None
        signed: _Item | None = None
        while True:
            sign = "+"
            item = self.positive()
            if item is None:
                sign, item = "-", self.negative()
            if item is not None:
                if signed is None:
                    signed = _Item("not", children=[_Item("true")])
                    found = self.joined(found, signed)
                if sign == "-":
                    signed.children.append(item)
                else:
                    _want(signed, item)
            elif (item := self.group()) is not None:
                found = item if found is None else self.joined(found, item)
            elif (item := self.item()) is not None:
                if found is None:
                    found = item
                elif not found.composite or found.kind in ("phrase", "phraseSegment", "segments", "and"):
                    found = _Item("or", children=[found, item])
                elif found.kind == "not":
                    found = self.joined(found, item)
                else:
                    found.children.append(item)
            if top and item is None:
                self.pass_over()
            if not (self.tokens.more() and (top or item is not None)):
                break
        if signed is not None and len(signed.children) == 1:  # nothing is excluded
            if found is None or found is signed:
                return signed.children[0]
            if found.kind == "rank":
                found.children = [child for child in found.children if child is not signed]
                return self.joined(found, signed.children[0])
        if signed is not None and signed.children[0].kind == "true":  # nothing is wanted but what has no sign
            if found is not None and found is not signed:
                _want(signed, _without(found, signed))
            return signed
        if found is None:
            self.tokens.position = start
        return found

    def joined(self, found: _Item | None, item: _Item) -> _Item:
        """What is found so far and one more item (AllParser.combineItems)."""
        if found is None:
            return item
        if item.kind == "or" and found.kind in ("or", "phrase"):
            return _Item("or", children=[found, item])
        if item.kind == "or" and found.kind == "rank":
            item.children[:0] = reversed(found.children)
            return item
        return _ranked(found, item)

    # ---- items

    def item(self) -> _Item | None:
        """A word, phrase or number, with `index:` before it or not."""
        return self.indexed_item()[0]

    def indexed_item(self) -> tuple[_Item | None, bool]:
        """An item, and whether an index was named."""
        start = self.tokens.position
        name = self.index_prefix()
        item = self.number() or self.phrase()
        if item is None and name is not None and self.tokens.skip("{"):
            self.skip_same_element()
        if item is None and name is not None and self.words_ahead():
            item = self.phrase()
        if item is None:
            self.tokens.position = start
            return None, name is not None
        if (weight := self.weight()) is not None:
            item.weight = weight
        item.index = name
        return item, name is not None

    def skip_same_element(self) -> None:
        """Passes over `{a b}`, which names no part of a struct: there are none here. Where one such search ends is
        remembered of all words in it, as a text may start many."""
        tokens, passed = self.tokens, []
        while tokens.more() and not tokens.at("}") and tokens.position not in self.ends:
            start = tokens.position
            passed.append(start)
            if tokens.at("word"):
                self.phrase()
                run = range(start, tokens.position)  # read from a later word of it, the phrase would end there too
                if not any(tokens.all[at].kind == "quote" for at in run):
                    passed += [at for at in run if tokens.all[at].kind == "word"]
            if tokens.more():
                tokens.next()
        tokens.position = self.ends.get(tokens.position, tokens.position)
        self.ends.update(dict.fromkeys(passed, tokens.position))

    def words_ahead(self) -> bool:
        """Whether noise alone stands before the next word; passes over it."""
        tokens = self.tokens
        while tokens.more():
            if tokens.at(" ", spaces=False):
                return False
            if tokens.at("number", "word", spaces=False):
                return True
            tokens.position += 1
        return False

    def nothing_ahead(self) -> int | None:
        """Where the next blank is, if no word stands before it; the end counts as one. None if there is a word."""
        at, quoted = self.tokens.position, False
        every = self.tokens.all
        while at < len(every) - 1:
            kind = every[at].kind
            if kind == "quote":
                while every[at].kind == "quote":
                    at += 1
                quoted = not quoted
                continue
            if kind == " " and not quoted:
                return at
            if kind in ("number", "word"):
                return None
            at += 1
        return at

    def index_prefix(self) -> str | None:
        """The name before a colon, if it is that of an index. A name followed by nothing is passed over, and what
        follows it; where that leads is remembered of each name on the way."""
        tokens, passed = self.tokens, []
        while True:
            start = tokens.position = self.after_blanks.get(tokens.position, tokens.position)
            passed.append(start)
            tokens.skip("[")
            name = self.name()
            found = bool(name) and tokens.skip(":", spaces=False) and self.queried(name) is not None
            if not found or (after := self.nothing_ahead()) is None:
                self.after_blanks.update(dict.fromkeys(passed, start))
                if found:
                    return name
                tokens.position = start
                return None
            tokens.position = after

    def name(self) -> str:
        """The name here, of words, numbers and `_` in parts joined by dots, "" if there is none. It ends where it does
        from each of its words on."""
        tokens = self.tokens
        tokens.skip_spaces()
        every, first = tokens.all, tokens.position
        if first not in self.name_ends:
            end = self.end_of_part(first)
            while end > first and every[end].kind == ".":
                end = self.end_of_part(end + 1) if every[end + 1].kind in ("word", "number") else first
            last = end if end > first else max(first + 1, self.end_of_part(first))
            self.name_ends |= {at: end for at in range(first, last) if every[at].kind != "." or at == first}
        tokens.position = max(first, self.name_ends[first])
        return "".join(token.text for token in every[first : tokens.position][:MAX_NAME])

    def end_of_part(self, at: int) -> int:
        """Where the words, numbers and `_` end that begin at a token."""
        while self.tokens.all[at].kind in ("word", "number", "_"):
            at += 1
        return at

    def weight(self) -> int | None:
        """`!200`, `!` (150), `!!` (200) after an item."""
        tokens, start = self.tokens, self.tokens.position
        if not tokens.skip("!", spaces=False):
            return None
        if tokens.at("number", spaces=False):
            digits = tokens.next().text
            if len(digits) < 20 and int(digits) < 1 << 31:
                return int(digits)
            tokens.position = start  # no integer of Java's: no weight
            return None
        weight = 150
        while tokens.skip("!", spaces=False):
            weight += 50
        return weight

    # ---- numbers

    def number(self) -> _Item | None:
        """10, -5.5, <20, >20, [1;5], [1;5;10]: before a blank, a bracket, a semicolon, an exclamation mark or the
        end."""
        tokens, start = self.tokens, self.tokens.position
        text = self.range()
        tokens.skip("[")
        if text is None:
            tokens.skip(" ", spaces=False)
            if tokens.at("-", spaces=False) and tokens.peek(1).kind == "number":
                tokens.position += 1
                text = "-" + self.digits()
            elif tokens.at("number"):
                text = self.digits()
        text = text or self.limit("<") or self.limit(">")
        if text is not None and not tokens.at(" ", "]", ";", ")", "end", "!", spaces=False):
            text = None
        if text is None:
            tokens.position = start
            return None
        return _Item("number", text)

    def digits(self) -> str:
        """The number here, with its decimals."""
        text = self.tokens.next().text
        if self.tokens.at(".", spaces=False) and self.tokens.peek(1).kind == "number":
            self.tokens.position += 1
            text += "." + self.tokens.next().text
        return text

    def range(self) -> str | None:
        tokens, start = self.tokens, self.tokens.position
        if tokens.skip("["):
            low = self.end_of_range()
            if tokens.skip(";"):
                high = self.end_of_range()
                text = f"[{low};{high}"
                if tokens.skip(";"):
                    sign = "-" if tokens.skip("-") else ""
                    if tokens.at("number"):
                        text += ";" + sign + tokens.next().text
                tokens.skip("]")
                if low or high:
                    return text + "]"
        tokens.position = start
        return None

    def end_of_range(self) -> str:
        sign = "-" if self.tokens.skip("-") else ""
        return sign + self.digits() if self.tokens.at("number") else ""

    def limit(self, sign: str) -> str | None:
        tokens, start = self.tokens, self.tokens.position
        if tokens.skip(sign):
            minus = "-" if tokens.skip("-", spaces=False) else ""
            if tokens.at("number"):
                return sign + minus + self.digits()
        tokens.position = start
        return None

    # ---- words and phrases

    def phrase(self) -> _Item | None:
        """A word; words in quotes (a phrase); or words joined by other than spaces (all of them)."""
        start = self.tokens.position
        item = self.phrase_body()
        if item is None:
            self.tokens.position = start
        return item

    def phrase_word(self, quoted: bool, inside: bool) -> _Item | None:
        if self.tokens.at("word"):
            return self.segment(self.tokens.next(), quoted=quoted)
        if self.tokens.at("number"):
            return _Item("word" if inside else "number", self.tokens.next().text)
        return None

    def phrase_body(self) -> _Item | None:
        tokens = self.tokens
        quoted = tokens.skip_all("quote")
        composite: _Item | None = None
        first: _Item | None = None
        after = False
        while True:
            before = tokens.skip("*")
            if tokens.skip_all("quote"):
                quoted = not quoted
            word = self.phrase_word(quoted, first is not None or composite is not None)
            if word is None:
                if tokens.skip_all("quote"):
                    quoted = not quoted
                if not (quoted and tokens.more()):
                    break
                tokens.position += 1
                if tokens.more():
                    continue
                break
            if composite is not None:
                composite.children.append(word)
            elif first is not None:
                if first.kind == "number":
                    first = _Item("word", first.text)
                composite = _Item("phrase" if quoted else "and", children=[first, word])
            else:
                first = word
                after = tokens.skip("*", spaces=False)
            if not quoted and tokens.at("quote"):
                break
            at_word = self.to_next_word(quoted)
            if not at_word and tokens.skip_all("quote", spaces=False):
                quoted = not quoted
            if not at_word and not quoted:
                break
            if quoted and tokens.skip_all("quote"):
                break
            if not tokens.more():
                break
        if composite is not None:
            return composite
        if first is not None and not first.composite and (before or after):
            kind = "substring" if before and after else "prefix" if after else "suffix"
            return _Item(kind, first.text, whole=first.whole)
        return first

    def to_next_word(self, quoted: bool) -> bool:
        """Passes over what may stand between the words of a phrase; whether a word follows at once."""
        tokens = self.tokens
        tokens.skip_all(*_SEPARATORS, *("()" if quoted else ""), spaces=False)
        return tokens.at("word", "number", spaces=False)


class _AnyParser(_SimpleParser):
    """The syntax of any: words without a sign only rank where others have one."""

    def parse(self) -> _Item | None:
        return self.any_items(True)

    def negative(self) -> _Item | None:
        start = self.tokens.position
        self.tokens.skip_all("+")
        item = None
        if self.tokens.skip_all("-"):
            item = self.signed()
            if item is not None and item.kind == "or":
                item = _Item("and", children=item.children)
        if item is None:
            self.tokens.position = start
        return item

    def joined(self, found: _Item | None, item: _Item) -> _Item:
        if found is None:
            return item
        if found.kind == "or" and item.kind == "or":
            return _Item("or", children=[found, item])
        return _ranked(found, item)


class _WebParser(_SimpleParser):
    """The syntax of web: all words, or those on one side of an OR; no parentheses."""

    def parse(self) -> _Item | None:
        runs: list[list[_Item]] = [[]]
        excluded: list[_Item] = []
        while True:
            if (item := self.negative()) is not None:
                excluded.append(item)
            elif (item := self.positive() or self.item()) is not None:
                if item.kind == "word" and item.text == "OR" and (runs[0] or len(runs) > 1):
                    runs.append([])
                else:
                    runs[-1].append(item)
            else:
                self.pass_over()
            if not self.tokens.more():
                break
        sides = [run[0] if len(run) == 1 else self.combined(run) for run in runs if run]
        top = None if not sides else sides[0] if len(sides) == 1 else _Item("or", children=sides)
        return self.result(top, excluded)


def _parser(grammar: Grammar) -> type[_Parser]:
    """Which parser reads a grammar (ParserFactory.java)."""
    if grammar.tokenization == "linguistics":
        return _LinguisticsParser
    if grammar.syntax == "web":
        return _WebParser
    if grammar.syntax == "none" or grammar.composite == "phrase":
        return _TokenizeParser
    return _AnyParser if grammar.composite == "or" else _SimpleParser


def _want(signed: _Item, item: _Item) -> None:
    """Adds to what a `not` wants (NotItem.addPositiveItem)."""
    wanted = signed.children[0]
    if wanted.kind == "true":
        signed.children[0] = item
    elif wanted.kind == "and":
        wanted.children.append(item)
    else:
        signed.children[0] = _Item("and", children=[wanted, item])


def _without(found: _Item, signed: _Item) -> _Item:
    """A composite without the `not` in it; any of what is left."""
    if not found.composite:
        return found
    left = [child for child in found.children if child is not signed]
    found.children = left
    return left[0] if len(left) == 1 else _Item("or", children=left)


def _ranked(found: _Item, item: _Item) -> _Item:
    """Two items of which the first decides and the other ranks."""
    if found.kind != "rank":
        return _Item("rank", children=[found, item] if found.kind == "not" else [item, found])
    if item.kind == "rank" and item.children[0].kind == "or":
        either = item.children[0]
        found.children.insert(0, either)
        either.children[:0] = reversed(item.children[1:])
        return found
    found.children.insert(0, item)
    return found
