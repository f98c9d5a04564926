"""The finder of YQL finds it in every form in which a repository shows it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.written_yql import all_written

README = """
Ask with curl:
```
curl -s http://localhost:8080/search/ -H 'Content-Type: application/json' -d '{
  "yql": "select title from item where category contains \\"shoes\\"", "hits": 3}'
vespa query 'yql=select * from item where {targetHits: 10}nearestNeighbor(embedding, q)' \\
  'input.query(q)=embed(text, @query)' query=red
```
or `"select item_id from item where true"`; but select one from the list below is prose.
"""
CODE = '''
"""A module about select things from somewhere."""
LIMIT = 5
a = "select * from item where price < 10"
b = f"select * from item where {a} and model_version{a} contains @v limit {LIMIT}"
c = ("select title from item "
     "where userInput(@query)")
d = "SELECT id FROM fed WHERE target = ?"
'''


def test_every_form(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README, "utf-8")
    (tmp_path / "feeders").mkdir()
    (tmp_path / "feeders" / "a.py").write_text(CODE, "utf-8")
    (tmp_path / "notebooks").mkdir()
    cells = [
        {"cell_type": "code", "source": ["%matplotlib inline\n", "yql = 'select * from shopper where true'"]},
        {"cell_type": "markdown", "source": ['Try `"select brand from item where true"`']},
    ]
    (tmp_path / "notebooks" / "n.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    profiles = tmp_path / "vespa_app" / "search" / "query-profiles"
    profiles.mkdir(parents=True)
    profile = '<query-profile id="p"><field name="yql">select * from item where price &gt; 1</field></query-profile>'
    (profiles / "p.xml").write_text(profile, "utf-8")
    found = {written.yql: written.file for written in all_written(tmp_path)}
    assert found == {
        'select title from item where category contains "shoes"': "README.md",
        "select * from item where {targetHits: 10}nearestNeighbor(embedding, q)": "README.md",
        "select item_id from item where true": "README.md",
        "select * from item where price < 10": "feeders/a.py",
        "select * from item where true and model_version contains @v limit 10": "feeders/a.py",
        "select title from item where userInput(@query)": "feeders/a.py",
        "select * from shopper where true": "notebooks/n.ipynb",
        "select brand from item where true": "notebooks/n.ipynb",
        "select * from item where price > 1": "vespa_app/search/query-profiles/p.xml",
    }
