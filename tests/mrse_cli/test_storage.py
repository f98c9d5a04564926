"""A full disk, a folder that cannot be written, a file that is not there: one line, exit code 2, in every command."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local_vespa.testing import free_port
from mrse_cli import main
from tests.helpers.small_runs import settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def searches(tmp_path: Path) -> Path:
    lists = {name: [["i1"]] * 6 for name in ("shown", "clicked")}
    ids = {name: [f"{name}{n}" for n in range(6)] for name in ("search_id", "user_id", "query")}
    pq.write_table(pa.table(ids | {"timestamp": list(range(6))} | lists), tmp_path / "searches.parquet")
    return tmp_path / "searches.parquet"


@pytest.fixture
def judgments(tmp_path: Path) -> Path:
    texts = {name: [f"{name}{n}" for n in range(2000)] for name in ("query", "item_id")}
    pq.write_table(pa.table(texts | {"grade": ["E", "I"] * 1000}), tmp_path / "labels.parquet")
    return tmp_path / "labels.parquet"


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to; root may write wherever the kernel has no say."""
    if os.geteuid() == 0:
        yield Path("/sys/kernel")
        return
    (tmp_path / "closed").mkdir(mode=0o555)
    yield tmp_path / "closed"


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file grows beyond `left` bytes: writing more fails as it does on a full disk, in C and in Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def ends_in_one_line(monkeypatch, capsys) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mrse", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main.main()
        error = capsys.readouterr().err
        assert end.value.code == 2, error
        assert error.count("\n") == 1 and "Traceback" not in error, error
        return error

    return run


# command → what it is given, where `out` is a place to write to
WRITES: dict[str, Callable[[Any, Path], list[object]]] = {
    "convert": lambda given, out: [
        "judgments", given["judgments"], "--scale", "esci", "--out", out / "judgments.parquet",
    ],
    "init": lambda given, out: [out / "shop"],
    "sample": lambda given, out: [out / "sample", "--items", 48],
    "features": lambda given, out: [given["items"], "-o", out / "f.parquet", "--size", 32],
    "train": lambda given, out: [given["catalogue"], "--out", out / "run", "--settings", given["settings"]],
    "study": lambda given, out: ["loss", "--out", out / "study"],
    "export": lambda given, out: [given["run"], "--out", out / "models"],
    "warm": lambda given, out: [given["searches"], "--out", out / "q.arrow", "--app", given["package"]],
    "feed": lambda given, out: [
        "items", given["items"], "--app", given["package"], "-e", given["url"], "--no-images",
        "--state", out / "state.sqlite",
    ],
    "migrate": lambda given, out: [
        given["new_models"], given["items"], "--app", given["package"], "-e", given["url"], "--config-server",
        given["url"], "--no-images", "--state", out / "state.sqlite",
    ],
    "demo": lambda given, out: ["--folder", out / "demo", "--app", given["package"]],
}  # fmt: skip
# command → what it is given where nothing is there
READS: dict[str, list[str]] = {
    "convert": ["ubi", "no/queries.parquet", "no/events.parquet"],
    "features": ["no/items.parquet"],
    "train": ["no/items.parquet"],
    "evaluate": ["no/run", "no/items.parquet"],
    "study": ["loss", *("--items", "no/i.parquet"), *("--judgments", "no/j"), *("--validation-judgments", "no/v")],
    "export": ["no/run", "--out", "export"],
    "size": ["--app", "no/app"],
    "deploy": ["no/app"],
    "feed": ["items", "no/items.parquet", "--app", "PACKAGE"],
    "query": ["dress", "--embed", "here", "--app", "no/app"],
    "warm": ["no/searches.parquet", "--app", "PACKAGE"],
    "serve": ["--app", "no/app"],
    "similar": ["i1", "--app", "no/app"],
    "why": ["dress", "i1", "--app", "no/app"],
    "encode": ["no/items.parquet", "--app", "PACKAGE", "--out", "no/vectors"],
    "served": ["no/served"],
    "verify": ["no/items.parquet", "--app", "PACKAGE"],
    "migrate": ["no/models", "no/items.parquet", "--app", "no/app"],
    "demo": ["--app", "no/app"],
}
# one has a line a problem, the others would run on where they do not fail
ELSEWHERE = {"serve-local", "validate", "watch"}


def test_no_command_is_forgotten() -> None:
    assert set(WRITES) | set(READS) | ELSEWHERE == set(main.COMMANDS)


@pytest.fixture
def given(tmp_path, items, searches, judgments, package, vespa, new_models, trained) -> dict[str, Any]:
    return {
        "items": items, "searches": searches, "catalogue": trained.inputs.items, "new_models": new_models,
        "package": shutil.copytree(package, tmp_path / "app"), "url": vespa.url, "run": trained.run,
        "judgments": judgments, "settings": settings(tmp_path / "settings.toml"),
    }  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk(name, given, tmp_path, ends_in_one_line) -> None:
    (tmp_path / "out").mkdir()
    with full_disk(left=1000):
        line = ends_in_one_line(name, *WRITES[name](given, tmp_path / "out"))
    assert "File too large" in line or "disk" in line, line
    assert "ree some space" in line or "space left" in line, line


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("kind", ["unwritable", "below a file"])
def test_a_folder_that_cannot_be_written(name, kind, given, tmp_path, unwritable, ends_in_one_line) -> None:
    (tmp_path / "file").write_text("")
    out = unwritable if kind == "unwritable" else tmp_path / "file"
    line = ends_in_one_line(name, *WRITES[name](given, out))
    assert str(out) in line, line


@pytest.mark.parametrize("name", READS)
def test_what_is_not_there(name, monkeypatch, tmp_path, package, ends_in_one_line) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [package if argument == "PACKAGE" else argument for argument in READS[name]]
    assert "no/" in ends_in_one_line(name, *arguments)


def test_a_package_that_is_not_there(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["mrse", "validate", str(tmp_path / "no")])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "full"])
def test_an_engine_that_cannot_write(place, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    ports = ["--port", free_port(), "--deploy-port", free_port()]
    command = [sys.executable, "-m", "mrse_cli.main", "serve-local", *ports, "--data", tmp_path / place]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)) if place == "full" else None  # noqa: E731
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120, preexec_fn=limit
    )
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line and " WARNING " not in line]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert str(tmp_path / place) in lines[0] or "disk" in lines[0]


def test_an_evaluation_without_space(trained, tmp_path, ends_in_one_line) -> None:
    run = shutil.copytree(trained.run, tmp_path / "run")
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    with full_disk(left=1000):
        ends_in_one_line("evaluate", run, trained.inputs.items)


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mrse_cli.main", "size"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("No space left on device") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["size"]])
def test_a_terminal_of_another_encoding(arguments, encoding) -> None:
    command = [sys.executable, "-m", "mrse_cli.main", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and done.stderr == b""


def test_hits_in_letters_that_the_terminal_lacks(vespa, package) -> None:
    fields = {"item_id": "i1", "title": "リネンドレス → naïve", "category": ["a", "b"]}
    vespa.answer = lambda body: {
        "root": {"fields": {"totalCount": 1}, "children": [{"relevance": 1, "fields": fields}]}
    }
    command = [sys.executable, "-m", "mrse_cli.main", "query", "dress", "--app", str(package), "-e", vespa.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr == b"" and b"? na?ve" in done.stdout


def test_a_reader_that_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mrse_cli.main", "size"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""
