"""The language of an item's texts: its own, the feed's, the schema's; it goes with every text that is sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from local_vespa.testing import running_engine
from mrse_cli import main
from mrse_model.errors import InputError


def mrse(*arguments: object) -> str:
    result = CliRunner().invoke(main.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def languages(vespa) -> dict[str, str | None]:
    return {name.split("::")[1]: fields.get("language") for name, fields in vespa.documents.items()}


@pytest.mark.parametrize(
    ("column", "options", "right"),
    [
        (None, [], ["en", "en", "en"]),
        (None, ["--language", "sv"], ["sv", "sv", "sv"]),
        (["de", None, ""], [], ["de", "en", "en"]),
        (["de", None, "pt-BR"], ["--language", "sv", "--columns", ""], ["de", "sv", "pt-BR"]),
    ],
)
def test_an_item_has_its_own_language_or_the_feeds_or_the_schemas(vespa, package, tmp_path, column, options, right):
    items = tmp_path / "items.parquet"
    table = {"item_id": ["a", "b", "c"], "title": ["röd klänning"] * 3} | ({"language": column} if column else {})
    pq.write_table(pa.table(table), items)
    options = [option for option in options if option not in ("--columns", "")]
    mrse("feed", "items", items, "--app", package, "-e", vespa.url, *options)
    assert languages(vespa) == dict(zip("abc", right, strict=True))  # they arrive in any order


def test_every_update_of_a_text_says_the_language(vespa, package, tmp_path) -> None:
    items, updates = tmp_path / "items.parquet", tmp_path / "updates.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["Red dress"], "language": ["de"]}), items)
    mrse("feed", "items", items, "--app", package, "-e", vespa.url)
    pq.write_table(pa.table({"item_id": ["a"], "title": ["Rotes Kleid"], "language": ["de"]}), items)
    vespa.operations.clear()
    mrse("feed", "items", items, "--app", package, "-e", vespa.url)
    [(method, _, fields)] = vespa.operations
    assert method == "PUT" and fields["title"] == {"assign": "Rotes Kleid"} and fields["language"] == {"assign": "de"}

    def sent(table: dict, *options: str) -> tuple[dict, str]:
        pq.write_table(pa.table({"item_id": ["a"]} | table), updates)
        vespa.operations.clear()
        out = mrse("feed", "updates", updates, "--app", package, "-e", vespa.url, *options)
        [(_, _, fields)] = vespa.operations
        return {name: change["assign"] for name, change in fields.items()}, out

    fields, out = sent({"description": ["aus Wolle"]})
    assert fields == {"description": "aus Wolle", "language": "en"} and "description: taken as en" in out
    fields, out = sent({"description": ["aus Wolle"]}, "--language", "de")
    assert fields["language"] == "de" and "taken as" not in out
    assert sent({"description": ["aus Wolle"], "language": ["de"]})[0]["language"] == "de"
    assert sent({"price": [3.0]})[0] == {"price": 3.0}, "no text, no language"


def test_what_is_no_language_is_refused(vespa, package, tmp_path) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["Red dress"], "language": ["English (UK)"]}), items)
    with pytest.raises(InputError, match=r"row 0, field language: 'English \(UK\)' is not a language tag like"):
        mrse("feed", "items", items, "--app", package, "-e", vespa.url)
    with pytest.raises(InputError, match="field --language: 'swedish!' is not a language tag"):
        mrse("feed", "items", items, "--app", package, "-e", vespa.url, "--language", "swedish!")
    assert vespa.documents == {}


def test_words_are_stemmed_as_the_language_has_them(package: Path, tmp_path: Path) -> None:
    """Swedish plurals find their singular in Swedish, and not in English."""
    import json
    import urllib.request

    items = tmp_path / "items.parquet"
    with running_engine(tmp_path / "engine") as url:
        mrse("deploy", package, "--config-server", url)

        def found(language: str | None) -> int:
            body = {"yql": "select * from item where title contains 'klänning'", "ranking": "unranked"}
            body |= {"model.language": language} if language else {}
            request = urllib.request.Request(url + "/search/", json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            return json.load(urllib.request.urlopen(request))["root"]["fields"]["totalCount"]

        pq.write_table(pa.table({"item_id": ["a"], "title": ["Röda klänningar"]}), items)
        mrse("feed", "items", items, "--app", package, "-e", url)
        assert found(None) == 0
        mrse("feed", "items", items, "--app", package, "-e", url, "--language", "sv")
        assert found("sv") == 1
