"""From model A to model B without downtime: packages with two sets of vectors, and the backfill between them.

    1 both, A serves    fields embedding_next … beside embedding …; B's vectors are assigned to the former
    2 both, B serves    the query profiles turn to the new fields; B's vectors are assigned to the old ones
    3 B twice           the new model also under the old names, which no query profile uses
    4 B twice           the query profiles turn back to the old fields, which hold B's vectors now
    5 plain             the second set goes: the package as it was, with model B

Each step only turns to what every node had before it, since containers and content nodes do not take a new package at
the same instant: so no query fails and none meets vectors of two models. Vespa adds and removes fields without a
restart or a re-feed. The price: two writes an item and, meanwhile, the memory of two sets of vectors.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vespa.application import Vespa

from feeders.feed import refused_file, send_all
from feeders.index.deployed import check_deployed, indexed
from feeders.index.journal import Journal, index_name
from feeders.items import ItemSource
from feeders.report import Progress, Report
from feeders.transport import Policy
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from vespa_package.second_set import EXPORTED, SUFFIX, copy_exported, double_package, plain_package


@dataclass
class Migration:
    """One migration and what it needs; `run` takes its five steps, from wherever an earlier run stopped.

    app: the package folder, with the old model in models/, where the new one is written at the end. models: the new
    export. open_source: opens and checks the items file for this model, anew for each step, so that the file may change
    meanwhile (ItemSource.open with columns=()). deploy: deploys a package folder and returns when it runs. vespa,
    queries: the containers for documents and for queries. state: the index's journal. say: is given a line a step.
    """

    app: Path
    models: Path
    open_source: Callable[[ExportedModel], ItemSource]
    deploy: Callable[[Path], object]
    vespa: Vespa
    queries: Vespa
    state: Path
    say: Callable[[str], object] = print
    progress: Callable[[str, Report], None] = lambda step, report: None
    policy: Policy | None = None

    def run(self) -> str:
        """Takes the steps that are left, and returns the version of the new model. Raises InputError."""
        old, new = ExportedModel.load(self.app / "models"), ExportedModel.load(self.models)
        version = new.manifest.model_version
        if old.manifest.model_version == version:
            problem = f"{self.app} has model {version} already"
            raise InputError(problem, file=self.models, fix="Give the folder of another export")
        self.open_source(new)  # bad input stops it before the first deployment
        filled, others = indexed(self.queries, version)
        with tempfile.TemporaryDirectory() as scratch:
            at = Path(scratch)
            if filled == 0:
                check_deployed(self.queries, old)
                both = double_package(self.app, self.app / "models", self.models, at / "1", serve_next=False)
                self._step(both, "1 a second set of vectors")
                self._fill(new, SUFFIX, "new vectors beside the old")
            if others:
                switched = double_package(self.app, self.app / "models", self.models, at / "2", serve_next=True)
                self._step(switched, "2 the query profiles turn to the new vectors")
                self._fill(new, "", "new vectors in place of the old")
            if others or self._has_second_set(version):  # else it was killed after step 5: nothing to turn to
                twice = double_package(self.app, self.models, self.models, at / "3", serve_next=True)
                self._step(twice, "3 the new model has both names")
                back = double_package(self.app, self.models, self.models, at / "4", serve_next=False)
                self._step(back, "4 the query profiles turn back")
            self._step(plain_package(self.app, self.models, at / "5"), "5 the second set goes")
        for name in EXPORTED:
            copy_exported(self.models, name, self.app / "models" / name)
        return version

    def _step(self, folder: Path, words: str) -> None:
        self.say(words)
        self.deploy(folder)

    def _fill(self, new: ExportedModel, suffix: str, done: str) -> None:
        """Assigns the new vectors, and sees that no item of the index is without: what a feed brought meanwhile is in
        the file by then, and gets its vectors in another round.
        """
        version, before = new.manifest.model_version, -1
        while True:
            source = self.open_source(new)
            report = backfill(
                self.vespa,
                source,
                self.state,
                suffix=suffix,
                queries=self.queries,
                progress=lambda report: self.progress(done, report),
                policy=self.policy,
                say=self.say,
            )
            _, without = indexed(self.queries, version, suffix)
            self.say(f"{done}: {report.ok} items in {report.seconds:.1f} s, {report.unchanged} had them before")
            if report.stopped:
                raise InputError(report.stopped, fix="Run the same command again to resume")
            if not report.failed and not without:
                return
            if report.failed or source.written == before:
                raise InputError(
                    f"{without} items of the index have no vectors of {version} ({report.failed} updates were refused)",
                    file=source.items.path,
                    fix="Complete the file, which must hold every item of the index, and run the command again",
                )
            before = source.written

    def _has_second_set(self, version: str) -> bool:
        """Whether the second fields are deployed and hold this version in every item. Vespa refuses to search a field
        that is not there.
        """
        try:
            _, without = indexed(self.queries, version, SUFFIX)
        except InputError:
            return False
        return without == 0


def backfill(
    app: Vespa,
    source: ItemSource,
    state: Path,
    *,
    suffix: str = "",
    queries: Vespa | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
    say: Callable[[str], object] = print,
) -> Report:
    """Assigns the source's vectors to the fields with this suffix, in every item of the file.

    The journal of the plain fields is that of `feed_items`, so a feed after the migration finds nothing changed. That
    of the others is forgotten where the index has none of this version: the fields went with an earlier migration.
    This waits while a feed runs, and says so.
    """
    report = Report() if report is None else report
    version, name = source.model.manifest.model_version, index_name(app.end_point, source.doctype.name)
    report.rows, target = source.items.rows, f"{name} {suffix} {version}" if suffix else name
    journal = Journal.when_free(state, target, say, threading.Event())
    assert journal is not None  # nothing stops the wait
    with journal:
        if suffix and indexed(queries or app, version, suffix)[0] == 0:
            journal.keep_only(())
        updates = source.vector_updates(journal, report, suffix)
        send_all(app, updates, refused_file(state), journal=journal, report=report, progress=progress, policy=policy)
    return report
