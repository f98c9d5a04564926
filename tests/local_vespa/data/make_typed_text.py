"""Writes typed_text.json: typed texts and the query trees that Vespa's own parsers make of them.

The texts are ours: words and signs drawn with a fixed seed. The trees are those of Vespa's published Java artifacts
(com.yahoo.vespa:container-search and what it needs; any Maven project that depends on it prints its class path with
`mvn dependency:build-classpath`):

    javac -cp "$CLASSPATH" -d /tmp/typed tests/local_vespa/data/TypedText.java
    python tests/local_vespa/data/make_typed_text.py java -cp "/tmp/typed:$CLASSPATH" TypedText
"""

import json
import random
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

# Stems of English words are another matter: these have none.
WORDS = [
    "red", "tee", "t", "shirt", "blue", "children's", "rock'n'roll", "o'", "10", "5.5", "3", "OR", "title", "colour",
    "price", "dark", "default", "é", "日本", "tm™", "®", "👟", "½", "m²", "ﬁt",
]  # fmt: skip
SIGNS = [
    " ", " ", " ", " ", "-", "+", ".", ",", "_", "*", "!", "!!", "!200", ":", ":", '"', '"', "(", ")", "[", "]", ";",
    "<", ">", "^", "~", "{", "}", "$", "&", "/", "'", "“", "”", "\t", "\u00a0", "。", "：", "%", "#", "|", "\\",
]  # fmt: skip
GRAMMARS = (
    ["weakAnd"] * 4 + ["all"] * 2 + ["any"] * 2 + ["web"] * 2 + ["phrase", "linguistics", "tokenize", "segment", "raw"]
)
KNOWN = [
    "t-shirt", "children's", "children's shoes", "red/blue", "a&b", "handmade_bowl", "red*", "*red*", "red* -blue",
    '"red tee" -blue', "red OR blue", "+red blue", "price:<50 red", "title:red colour:dark-blue",
    'colour:"dark blue" x', "red 10% off", "red $20-$30", "don't!200 stop", "t-shirt!200", "-red", "...",
    "(red blue) tee",
    "x (red +blue -tee)",
]  # fmt: skip


def main() -> None:
    rng = random.Random(7)
    rows = [("weakAnd", "default", text) for text in KNOWN]
    while len(rows) < 700:
        text = "".join(rng.choice(WORDS if rng.random() < 0.55 else SIGNS) for _ in range(rng.randint(2, 9)))
        if text.strip():
            rows.append((rng.choice(GRAMMARS), rng.choice(["default"] * 5 + ["colour", "title"]), text))
    asked = [
        urlencode(
            {
                "yql": f'select * from sources * where {{grammar: "{g}", defaultIndex: "{i}"}}userInput(@text)',
                "text": text,
                "model.language": "en",
            }
        )
        for g, i, text in rows
    ]
    done = subprocess.run(sys.argv[1:], input="\n".join(asked), capture_output=True, text=True, check=True)
    trees = [json.loads(line) for line in done.stdout.splitlines()]
    lines = [
        json.dumps([*row, None if isinstance(tree, dict) else tree], ensure_ascii=False)
        for row, tree in zip(rows, trees, strict=True)
    ]
    path = Path(__file__).parent / "typed_text.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(len(rows), "texts,", sum(isinstance(tree, dict) for tree in trees), "of them refused")


if __name__ == "__main__":
    main()
