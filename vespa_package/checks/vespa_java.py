"""Runs tests/vespa_java, in which Vespa's own code judges an application package. Needs Java 17 and Maven."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError

MODULE = Path(__file__).parents[2] / "tests" / "vespa_java"
# Vespa says these to every package outside a real installation
EXPECTED = re.compile(r"vespa-verify-ranksetup-bin|Unable to lookup IP address of host")


def why_not() -> str | None:
    """The reason why Vespa's code cannot run here, or None if it can."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found: install a Java 17 JDK and Maven"
    if not (MODULE / "pom.xml").is_file():
        return f"{MODULE} is not here: run from a checkout of the repository"
    return None


def build(module: Path = MODULE) -> str:
    """Compiles the module if its sources are newer than its classes, and returns the class path."""
    import fcntl  # only where Java is wanted: not every system has it

    target = module / "target"
    target.mkdir(exist_ok=True)
    with open(target / "lock", "w") as lock:  # two test processes may come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(module, target / "classpath.txt")


def _build(module: Path, listing: Path) -> str:
    sources = [module / "pom.xml", *module.glob("src/**/*.java")]
    if not listing.is_file() or listing.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        goals = ["compile", "dependency:build-classpath", f"-Dmdep.outputFile={listing.resolve()}"]
        done = subprocess.run(["mvn", "-q", "-B", *goals], cwd=module, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Maven failed in {module}:\n{done.stdout[-4000:]}")
        listing.touch()
    return f"{module / 'target' / 'classes'}:{listing.read_text().strip()}"


def ask(job: dict[str, Any], module: Path = MODULE) -> dict[str, Any]:
    """One JVM for one job; keys of job and answer are those of Judge.java."""
    classpath = build(module)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job), "utf-8")
        options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={folder}"]
        done = subprocess.run(
            ["java", *options, "-cp", classpath, "mrse.Judge", "job.json", "answer.json"],
            cwd=folder,  # the container writes logs/ where it is started
            capture_output=True,
            text=True,
        )
        answer = Path(folder) / "answer.json"
        text = answer.read_text("utf-8") if answer.is_file() else ""
        if done.returncode or not text:  # a full disk leaves an empty file behind
            free = shutil.disk_usage(folder).free / 2**30
            why = f"exit code {done.returncode}, {free:.1f} GiB free in {tempfile.gettempdir()}"
            raise RuntimeError(f"the judge failed ({why}):\n{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(text)
        return result


def complaints(verdict: dict[str, Any]) -> list[str]:
    """What Vespa holds against a package: its error, warnings that are not of this environment, problems of ranking."""
    found = [verdict["error"]] if verdict["error"] else []
    found += [
        f"{level}: {text}"
        for level, text in verdict["messages"]
        if level in ("WARNING", "SEVERE") and not EXPECTED.search(text)
    ]
    return found + verdict["problems"]


def judge(app: str | Path) -> list[InputError]:
    """Vespa's own judgement of one package; an empty list if it accepts it."""
    reason = why_not()
    if reason:
        raise InputError("Vespa's own code cannot run here", fix=reason)
    answer = ask({"packages": [{"name": "app", "dir": str(Path(app).resolve())}]})
    return [
        InputError(f"Vespa says: {text}", file=app, fix="Correct the file that the message names")
        for text in complaints(answer["packages"]["app"])
    ]
