"""Whole YQL statements, drawn at random, and whether Vespa's own container takes them (data/drawn_yql.json)."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

CASES = json.loads((Path(__file__).parents[1] / "data" / "drawn_yql.json").read_text("utf-8"))
OURS = ("local_vespa does not support", "not supported by this engine")  # as LIMITS.md says
LATER = ("Could not resolve source ref", "not applicable for single group")  # what Vespa checks after its container


def answers(url: str, statements: list[str]) -> list[tuple[str, int, str]]:
    """Each statement with the status and the words of its refusal."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        found = [client.post(f"{url}/search/", json={"yql": s} | CASES["parameters"]) for s in statements]
    errors = [answer.json()["root"].get("errors", [{}])[0].get("message", "") for answer in found]
    return [(s, answer.status_code, error) for s, answer, error in zip(statements, found, errors, strict=True)]


def test_what_vespa_takes_is_answered_or_refused_in_our_words(shop: str) -> None:
    wrong = [a for a in answers(shop, CASES["taken"]) if a[1] != 200 and not any(w in a[2] for w in OURS + LATER)]
    assert wrong == []


def test_what_vespa_refuses_is_refused(shop: str) -> None:
    assert [answer for answer in answers(shop, CASES["refused"]) if answer[1] == 200] == []
