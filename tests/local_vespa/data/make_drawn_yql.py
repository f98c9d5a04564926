"""Writes drawn_yql.json: YQL statements and whether Vespa's own container takes them.

The statements are ours: drawn with a fixed seed over the fields of tests/helpers/small_app.py, a quarter of them with
a token too many, too few or changed. The judge is a command that reads lines `YQL <tab> PARAMETERS` (URL-encoded) and
prints for each a block that begins with `YQL   ` and whose second line begins with OK or ERROR: Vespa's published Java
artifacts with the package of that module. It sees syntax, types and fields, not what the content node refuses.

    python tests/local_vespa/data/make_drawn_yql.py PACKAGE_FOLDER JUDGE [ARGUMENT …]
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

PARAMETERS = {
    "ranking": "base",
    "input.query(q)": "[1,2,3,4]",
    "input.query(person)": "[[1,2,3,4]]",
    "w": "red dress",
    "e": "",
    "m": "{a:1}",
}
COUNT = 1500
TEXTS = ['"dress"', '"red dress"', '"t-shirt"', '""', '"Red"', "@w", "'blue'", '"a\\"b"', '"ドレス"', '"x.y"']
STRINGS = ["title", "title", "default", "labels", "colour", "marks"]
NUMBERS = ["price", "stock", "added", "sold"]
VALUES = ["1", "0", "-3", "12.5", "40", "1e3", "9999999999", "50L", "0.0", "-0.5"]
ANNOTATIONS = [
    "weight:200", "filter:true", "ranked:false", "prefix:true", "stem:false", "suffix:true", "significance:0.5",
    'label:"a"', "id:3", 'id:"x"', "normalizeCase:false", "substring:true", "connectivity:{id:1,weight:0.5}",
    "accentDrop:false", "nonsense:1", "weight:1.5", "stem:1",
]  # fmt: skip
NEAREST = [
    "targetHits:10", "targetHits:0", "targetHits:-1", "targetHits:10,approximate:false", 'label:"x"',
    "targetHits:10,distanceThreshold:0.5", "targetHits:10,hnsw.exploreAdditionalHits:5", "totalTargetHits:10",
    'targetHits:10,label:"x"', "targetHits:1.5",
]  # fmt: skip
LEAVES = [
    "true", "false", "userInput(@w)", 'userInput("red dress")', '({defaultIndex:"title"}userInput(@w))',
    '({grammar:"all"}userInput(@w))', '({grammar:"phrase"}userInput(@w))', '({grammar:"raw"}userInput(@w))',
    '({grammar:"nope"}userInput(@w))', "({allowEmpty:true}userInput(@e))", "userInput(@e)", "userInput(@missing)",
    "({targetHits:5}userInput(@w))",
]  # fmt: skip
ORDERS = ["price", "price desc", "added asc", "colour", "nothing", '{function:"lowercase"}colour desc', "sold"]
GROUPED = [
    "colour", "labels", "price", "stock", "marks", "sold", "fixedwidth(price,10)", "time.year(added)", "1", "nothing",
    "predefined(price,bucket(0,10),bucket[10,20>)", "math.floor(price)", "-stock", "stock + 1", "stock % 2",
]  # fmt: skip
OUTPUTS = ["count()", "avg(price)", "sum(price)", "max(stock)", "min(price)", "stddev(price)", "quantiles([0.5],price)"]
ORDERED = ["", " max(5)", " order(-count())", " order(avg(price))", " max(5) order(-max(relevance()))", " max(-1)"]
STARTS = [*["select * from thing where "] * 6, "select title, price from thing where ", "SELECT * FROM thing WHERE "]
NOISE = ["(", ")", '"', ",", "and", "or", "{", "}", "[", ":", "not", "!", "null", ";", "#", "-"]


class Writer:
    """Draws statements."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.one = self.chance.choice

    def texts(self, most: int = 3) -> str:
        return ", ".join(self.one(TEXTS) for _ in range(self.chance.randint(1, most)))

    def term(self) -> str:
        one, field = self.one, self.one(STRINGS)
        note = "" if self.chance.random() < 0.4 else f"{{{one(ANNOTATIONS)}}}"
        kinds = [
            lambda: f"{field} contains {f'({note}{one(TEXTS)})' if note else one(TEXTS)}",
            lambda: f"{field} contains {f'({note}{one(TEXTS)})' if note else one(TEXTS)}",
            lambda: f"{field} contains phrase({self.texts()})",
            lambda: f"title contains {one(['near', 'onear'])}({self.texts()})",
            lambda: f"title contains ({{distance:{one(['2', '0', '-1', '1.5'])}}}near({self.texts(2)}))",
            lambda: f"{field} contains equiv({self.texts()})",
            lambda: f"colour contains ({one(['', '{maxEditDistance:1}', '{prefixLength:2}'])}fuzzy({one(TEXTS)}))",
            lambda: f"colour matches {one(TEXTS)}",
            lambda: f"{one(NUMBERS)} {one(['<', '>', '<=', '>=', '=', '!='])} {one(VALUES)}",
            lambda: f"range({one(NUMBERS)}, {one(VALUES)}, {one([*VALUES, 'Infinity', '-Infinity'])})",
            lambda: f"{one(NUMBERS + STRINGS)} in ({', '.join(one([*TEXTS, *VALUES]) for _ in range(2))})",
            lambda: f"{{{one(NEAREST)}}}nearestNeighbor({one(['vector', 'title'])}, {one(['q', 'q', 'zz'])})",
            lambda: one(LEAVES),
            lambda: f"{one(['weakAnd', 'rank', 'wand'])}({self.term()}, {self.term()})",
            lambda: (
                f"{one(['wand', 'weightedSet', 'dotProduct'])}(marks, {one(['{a:1}', '[[1,2],[3,4]]', '@m', '3'])})"
            ),
            lambda: f"!({self.term()})",
        ]
        return one(kinds)()

    def condition(self, depth: int = 0) -> str:
        if depth > 2 or self.chance.random() < 0.5:
            return self.term()
        parts = [self.condition(depth + 1) for _ in range(self.chance.randint(2, 3))]
        return f"({self.one([' and ', ' or ']).join(parts)})"

    def statement(self) -> str:
        text = self.one(STARTS) + self.condition()
        if self.chance.random() < 0.25:
            text += " order by " + ", ".join(self.one(ORDERS) for _ in range(self.chance.randint(1, 2)))
        if self.chance.random() < 0.2:
            text += self.one([" limit 5", " limit 5 offset 2", " offset 2", " limit 0", " limit 5,2", " timeout 500"])
        if self.chance.random() < 0.2:
            output = f"output({self.one(OUTPUTS)}{self.one(['', ' as(x)'])})"
            text += f" | all(group({self.one(GROUPED)}){self.one(ORDERED)} each({output}))"
        return self.garbled(text) if self.chance.random() < 0.25 else text

    def garbled(self, text: str) -> str:
        tokens = re.findall(r'\w+|"[^"]*"|\s+|.', text)
        at, other = self.chance.randrange(len(tokens)), self.chance.randrange(len(tokens))
        match self.chance.randrange(4):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                tokens[at] = self.one(NOISE)
            case _:
                tokens[at], tokens[other] = tokens[other], tokens[at]
        return "".join(tokens)


def main() -> None:
    package, judge = Path(sys.argv[1]), sys.argv[2:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.helpers.small_app import package_files

    for name, content in package_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(content)
    writer = Writer(seed=11)
    statements = list(dict.fromkeys(writer.statement() for _ in range(COUNT)))
    lines = "".join(f"{statement}\t{urlencode(PARAMETERS)}\n" for statement in statements)
    out = subprocess.run([*judge, str(package)], input=lines, capture_output=True, text=True, check=True).stdout
    blocks = out.removeprefix("YQL   ").split("\nYQL   ")
    assert len(blocks) == len(statements), (len(blocks), len(statements))
    taken = [block.split("\n")[1].startswith("OK") for block in blocks]
    made = {
        "parameters": PARAMETERS,
        "taken": [s for s, ok in zip(statements, taken, strict=True) if ok],
        "refused": [s for s, ok in zip(statements, taken, strict=True) if not ok],
    }
    path = Path(__file__).with_name("drawn_yql.json")
    path.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n", "utf-8")
    print(f"{path.name}: {len(made['taken'])} taken, {len(made['refused'])} refused")


if __name__ == "__main__":
    main()
