"""Runs a study: trains what is not trained, measures what is not measured, writes table, plot and log entry.

STUDY/study.toml, runs/VARIANT (a run of mrse train each), measured/VARIANT.json, results.json, results.md, plot.png,
log-entry.md. Resumable: what is finished stays. A variant takes over the stages that an earlier run has in common with
it (mrse_model.training.claim): a study, and those beside it, are each other's stage cache.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console

from mrse_model.atomic_file import atomic_file
from mrse_model.config import Config, differences, overlay, read_config, result_affecting, summarize, write_config
from mrse_model.errors import InputError
from mrse_model.fingerprint import fingerprint_of
from mrse_model.model import META, MRSE
from mrse_model.studies.categories import by_category
from mrse_model.studies.inputs import check, some_queries
from mrse_model.studies.measure import MEASURES, EvaluationSet, TrainedVariant
from mrse_model.studies.measured import Measured, mean_of, stage_figures
from mrse_model.studies.plots import draw
from mrse_model.studies.results import Results, tabulate
from mrse_model.studies.study import Data, Study, Variant, slug
from mrse_model.training.claim import FORMAT, OTHER_FOLDER, Inputs, best_run, claim_of, data_fingerprint
from mrse_model.training.pipeline import train
from mrse_model.training.stages import STAGES

LEARNT_FROM = "of them learnt from: these figures are not of new queries"


def run_study(
    study: Study,
    data: Data,
    out: Path,
    config: Config,
    *,
    stage_cache: Path | None = None,
    seeds: int = 1,
    command: str = "",
    console: Console | None = None,
) -> Results:
    """Runs the study in `out` and returns its results.

    Args:
        config: what all variants have in common. stage_cache: a folder of studies, from whose runs finished stages are
            taken over; default: the folder that `out` is in. seeds: trainings of each variant, of the config's seed and
            the next ones; a row is their mean. command: for the log entry.

    Raises InputError for a missing input, and when `out` holds the study of other data, settings or version.
    """
    console, stage_cache = console or Console(), stage_cache or out.parent
    data = check(study, data, out / "sample", console)
    evaluation = EvaluationSet(data)
    _claim(study, data, out, config, seeds)
    items, queries = len(evaluation.catalogue), len(evaluation.queries)
    described = f"{about(data.items, data.title)}: {items:,} items, {queries} judged queries"
    if evaluation.learnt:
        described += f", {evaluation.learnt} {LEARNT_FROM}"
        console.print(f"warning: {described}", style="yellow")
    (out / "measured").mkdir(exist_ok=True)
    measured: dict[str, Measured] = {}
    trained: TrainedVariant | None = None
    for number, variant in enumerate(study.ordered(), 1):
        console.print(f"{study.name}, {number} of {len(study.variants)}: {variant.name}", style="bold cyan")
        trainings = []
        for seed in range(config.train.seed, config.train.seed + seeds):
            suffix = f"-seed-{seed}" if seed > config.train.seed else ""
            path = out / "measured" / f"{slug(variant.name)}{suffix}.json"
            if not path.exists():
                run, settings = out / "runs" / f"{variant.folder}{suffix}", overlay(config, {"train": {"seed": seed}})
                if trained is None or trained.run != run:
                    if seeds > 1:
                        console.print(f"seed {seed}", style="bold")
                    trained = _trained(study, variant, evaluation, run, settings, stage_cache, console)
                _measure(study, variant, trained).save(path)
            trainings.append(Measured.load(path))
        measured[variant.name] = mean_of(trainings)
        results = replace(_results(study, measured, described, evaluation), seeds=seeds)
        _write(study, results, out, command)
    console.print(f"{out / 'results.md'}, {out / 'plot.png'}, {out / 'log-entry.md'}")
    return results


def about(items: Path, title: str) -> str:
    """The data in a word: the name of its folder, and which column is read as the title."""
    return f"{items.parent.name}, {title}"


def is_current(study: Study, folder: Path) -> bool:
    """Whether what is in the study's folder was trained and measured by today's code, its variants as they are now."""
    path = folder / "study.toml"
    if not path.is_file():
        return False
    then, now = (_trained_for(toml) for toml in (path.read_text("utf-8"), study.toml(Data(path, path), "", FORMAT)))
    return all(then[key] == now[key] for key in ("version", "until", "variant"))


def _claim(study: Study, data: Data, out: Path, config: Config, seeds: int) -> None:
    """The folder belongs to one study of one set of data, settings and code: its rows must be comparable. What is
    shown of them, and against which row, may change; and everything until the first row has read its input.
    """
    out.mkdir(parents=True, exist_ok=True)
    learnt = data_fingerprint(Inputs(data.items, data.searches, data.judgments, data.features))
    text = study.toml(data, fingerprint_of(learnt, data_fingerprint(Inputs(data.validation))), FORMAT, seeds)
    path, settings = out / "study.toml", out / "settings.toml"
    if path.exists():
        changed = differences(result_affecting(read_config(settings)), result_affecting(config))
        changed += differences(_trained_for(path.read_text("utf-8")), _trained_for(text))
        if changed and (any(out.glob("runs/*/cache/examples")) or any(out.glob("measured/*"))):
            problem = f"this study was begun with other data, settings or version ({summarize(changed)})"
            raise InputError(problem, file=out, fix=OTHER_FOLDER)
    with atomic_file(settings) as part:
        write_config(config, part)
    with atomic_file(path) as part:
        part.write_text(text, "utf-8")


def _trained_for(toml: str) -> dict[str, object]:
    table = tomllib.loads(toml)
    variants = {variant["name"]: variant for variant in table["variant"]}
    return {"variant": variants} | {key: table.get(key) for key in ("name", "until", "seeds", "version", "data")}


def _trained(
    study: Study,
    variant: Variant,
    evaluation: EvaluationSet,
    run: Path,
    config: Config,
    stage_cache: Path,
    console: Console,
) -> TrainedVariant:
    """Trains the variant in `run`, or reads its finished run."""
    if (run / META).is_file():
        return TrainedVariant(MRSE.from_pretrained(run), run, evaluation)
    data = some_queries(evaluation.data, variant.queries, run.parent.parent / "data" / f"{variant.queries:g}")
    inputs = Inputs(
        data.items, data.searches, data.judgments, data.features, data.feature_column, data.encoder, title=data.title
    )
    settings = overlay(config, dict(variant.settings))
    runs = [folder for folder in (*run.parent.glob("*"), *stage_cache.glob("*/runs/*")) if folder != run]
    source = best_run(sorted(runs), claim_of(inputs, settings))
    model = train(inputs, run, settings, console, init_from=source, until=study.until or None)
    return TrainedVariant(model, run, evaluation)


def _measure(study: Study, variant: Variant, trained: TrainedVariant) -> Measured:
    values = MEASURES[study.measure](trained, variant)
    stages = STAGES[: STAGES.index(study.until) + 1] if study.until else STAGES
    return Measured(values, *stage_figures(trained.run, stages))


def _results(study: Study, measured: dict[str, Measured], data: str, evaluation: EvaluationSet) -> Results:
    if study.tabulate == "categories":
        return by_category(study, measured, data, evaluation.queries, evaluation.catalogue)
    return tabulate(study, measured, data)


def _write(study: Study, results: Results, out: Path, command: str) -> None:
    """The results so far."""
    texts = {
        "results.json": results.json(),
        "results.md": results.markdown(),
        "log-entry.md": results.log_entry(command, date.today()),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as part:
            part.write_text(text, "utf-8")
    draw(study, results, out / "plot.png")
