"""When Vespa's own code cannot run, the user is told why; what is this environment's is not held against a package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrse_model.errors import InputError
from vespa_package.checks import vespa_java as judge


def test_without_java(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    monkeypatch.setattr(judge.shutil, "which", lambda tool: None)
    assert judge.why_not() == "java and mvn not found: install a Java 17 JDK and Maven"
    with pytest.raises(InputError, match="Java 17 JDK"):
        judge.judge(package)


def test_complaints() -> None:
    verdict = {
        "error": None,
        "messages": [
            ["INFO", "a word of advice"],
            ["WARNING", "Unable to execute 'vespa-verify-ranksetup-bin '"],
            ["WARNING", "query(x) is used but not declared"],
        ],
        "problems": ["attribute(y): no such attribute"],
    }
    assert judge.complaints(verdict) == [
        "WARNING: query(x) is used but not declared",
        "attribute(y): no such attribute",
    ]
    assert judge.complaints({**verdict, "error": "no", "messages": [], "problems": []}) == ["no"]


@pytest.mark.parametrize("code", [0, 1])
def test_a_judge_that_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n: > answer.json\necho 'No space left on device' >&2\nexit {code}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(judge, "build", lambda module: "classes")
    with pytest.raises(RuntimeError, match=rf"exit code {code}, .* GiB free(.|\n)*No space left on device"):
        judge.ask({})
