"""The studies: the paper's experiments (Jiang et al. 2024, §Experiments) and the questions that it leaves open."""

from __future__ import annotations

from typing import Any

from mrse_model.config import LossConfig
from mrse_model.errors import InputError
from mrse_model.studies.study import CPU_SECONDS, Study, Variant

TEXT = ["vbert", "light_bert", "ft_att"]
ALL = [*TEXT, "history"]
BETA = LossConfig().beta
BETAS = (0.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 75.0)  # the paper has every 15
JUDGED = ("nDCG@10", "Recall@100", "Recall@500", "Rele@100")
CLICKS = ("clicks Recall@20", "clicks Recall@500", "Rele@100_w")


def _row(**model: Any) -> dict[str, Any]:
    """Settings of an ablation row before the history: neither users' histories nor item queries."""
    whole = {"experts": TEXT, "use_images": False, "use_category": False} | model
    return {"model": whole, "train": {"history_dropout": 1.0}}


def _without(expert: str) -> Variant:
    return Variant(f"without {expert}", {"model": {"experts": [e for e in ALL if e != expert]}})


def _events(name: str, click: float, cart: float, order: float, half_life: float = 30.0) -> Variant:
    weights = {"click": click, "cart": cart, "order": order}
    return Variant(name, {"train": {"event_weights": weights, "half_life_days": half_life}})


_PIECES = ["vbert", "light_bert"]  # the experts that read no n-grams
_IMAGE = {"use_images": True}
_FULL = "+ history"
# The paper's softmax, in which the two terms' negatives are apart: so weights of the terms mean what they mean there.
_PAPER = {"hard_in_softmax": False, "temperature": 0.1}
_BETA = tuple(Variant(f"β {beta:g}", {"loss": {"beta": beta, **_PAPER}}, x=beta) for beta in BETAS)

_STUDIES = (
    Study(
        "ablation",
        "What does each part add, and what is lost without each expert?",
        "paper, Table 2",
        (
            Variant("tokens alone", _row(experts=_PIECES), option="no history", versus="tokens alone"),
            Variant("+ n-grams", _row(), option="no history", versus="tokens alone"),
            Variant("+ image", _row(**_IMAGE), option="no history", versus="+ n-grams"),
            Variant("+ category", _row(**_IMAGE, use_category=True), option="no history", versus="+ image"),
            Variant(_FULL, {"model": {"experts": ALL}}, run="MRSE", versus="+ category"),
            Variant("+ user behaviour (I2I)", {"model": {"experts": ALL}}, run="MRSE", option="three queues"),
            *(_without(expert) for expert in ALL),
            Variant("n-grams from a random start", {"model": {"experts": ALL, "ngrams": "off"}}),
        ),
        reference=_FULL,
        measure="model",
        columns=(*JUDGED, *CLICKS),
        note="Rows from the second on add to the row before: n-grams are FtAtt, which alone reads them. `without` rows "
        "take an expert from `+ history`, the last one FastText's vectors, where the n-grams start. I2I "
        "changes rankings only where a user has clicked, so it has no value on the judged queries, which "
        "know no user.",
    ),
    Study(
        "transformer",
        "Are the light experts worth it beside one Transformer?",
        "paper, §Experiments, LMoE",
        (
            Variant("MRSE", {"model": {"experts": ALL}}),
            Variant("one Transformer", {"model": {"experts": ["vbert", "history"]}}),
            Variant(
                "one Transformer, twice as deep and wide",
                {"model": {"experts": ["vbert", "history"], "bert_layers": 4, "bert_dims": 256}},
            ),
        ),
        reference="MRSE",
        measure="model",
        columns=("Recall@500", "nDCG@10", "Recall@100", CPU_SECONDS),
        note="One Transformer is VBert alone, which reads text and image, so that only the light experts differ. "
        "CPU seconds are those of the steps of all stages, whichever run trained them; FtAtt's are included: the "
        "history's entries come from it.",
    ),
    Study(
        "history",
        "What does the history add?",
        "paper, Table 2 (Rele@K_w); the bar on personal searches",
        (
            Variant("without history", _row(**_IMAGE, use_category=True), option="no history"),
            Variant("with history", {"model": {"experts": ALL}}),
            Variant("with history, user unknown", {"model": {"experts": ALL}}, run="with history", option="no history"),
        ),
        reference="without history",
        measure="model",
        columns=(*CLICKS, "Rele@500_w", "nDCG@10"),
        needs=("searches", "returning users"),
        note="`User unknown`: the model that learnt with histories, measured without the user's.",
    ),
    Study(
        "loss",
        "Is the hybrid loss better than either of its terms?",
        "paper, Table 4: hybrid .595, softmax .536, triplet .370",
        (
            Variant("hybrid", {"loss": {"alpha": 1.0, "beta": BETA, **_PAPER}}),
            Variant("MNSCE alone", {"loss": {"alpha": 1.0, "beta": 0.0, **_PAPER}}),
            Variant("triplet alone", {"loss": {"alpha": 0.0, "beta": BETA, **_PAPER}}),
        ),
        reference="hybrid",
        measure="vbert",
        columns=("Recall@500", "nDCG@10", "Recall@100", "hard pool", "easy pool", "steps", "steps to 99 %"),
        plot="curves",
        until="vbert",
        note="VBert's own vectors, no user. Steps to 99 %: the first evaluation at which the dev score has 99 % of its "
        "best.",
    ),
    Study(
        "beta",
        "Which weight of the triplet term is best, for all items, among hard ones and among easy ones?",
        "paper, Fig. 5b: best at 30 inside; the hard pool rises with β, the easy one falls",
        _BETA,
        reference="β 0",
        measure="vbert",
        columns=("Recall@500", "nDCG@10", "Recall@100", "hard pool", "easy pool"),
        plot="lines",
        axis="β/α",
        until="vbert",
        note="VBert's own vectors, no user; each β is tested against β 0, MNSCE alone. Hard pool: a query's "
        "positives and all its judged lower grades; easy pool: its positives and 4,000 items drawn from those that "
        "are not judged for it. Measured there: the share of the query's P positives among the first P (R-precision).",
    ),
    Study(
        "experts",
        "How much of the fused vector is each expert's?",
        "paper, Table 3: mean cosine of an expert's output to the final vector",
        tuple(Variant(name, {"model": {"experts": ALL}}, run="MRSE", option=name) for name in ("all", *ALL)),
        reference="all",
        measure="expert",
        columns=("query cosine", "item cosine", "query share", "item share", "nDCG@10 without it"),
        plot="experts",
        note="The DSSM's layers turn the experts' space, so a cosine near 0 does not mean that an expert is "
        "unused. Share: how far the fused vector moves (1 - cosine) when the expert is zeroed, over the sum "
        "of all experts' moves. nDCG@10 without it: zeroed in both towers, nothing trained again.",
    ),
    Study(
        "dims",
        "How many dimensions does the embedding need?",
        "open question of the paper",
        tuple(Variant(str(d), {"model": {"dims": d}}, x=float(d)) for d in (32, 64, 128, 256)),
        reference="128",
        measure="model",
        columns=("nDCG@10", "Recall@100", "Recall@500", "clicks Recall@20", CPU_SECONDS),
        plot="lines",
        axis="dimensions",
        note="Dimensions of every expert and of the fused vector; the Transformer's width stays.",
    ),
    Study(
        "data",
        "How does quality grow with the data?",
        "open question of the paper",
        tuple(Variant(f"{p} %", queries=p / 100, option="no user", x=float(p)) for p in (10, 30, 100)),
        reference="100 %",
        measure="model",
        columns=("nDCG@10", "Recall@100", "Recall@500", CPU_SECONDS),
        plot="lines",
        axis="% of the training queries",
        note="A share of the distinct queries, each with all its searches and judgments, chosen by a hash: the 10 "
        "% are among the 30 %. The catalogue is whole, and the settings (epochs, least steps) are the same.",
    ),
    Study(
        "events",
        "Should a cart or an order weigh more in a history than a click, and how fast should it fade?",
        "open question of the paper: longer behaviour",
        (
            _events("1 : 2 : 3, 30 days", 1, 2, 3),
            _events("1 : 1 : 1, 30 days", 1, 1, 1),
            _events("1 : 4 : 9, 30 days", 1, 4, 9),
            _events("carts and orders only, 30 days", 0, 1, 1),
            _events("1 : 2 : 3, 3 days", 1, 2, 3, 3),
            _events("1 : 2 : 3, 10 days", 1, 2, 3, 10),
            _events("1 : 2 : 3, no decay", 1, 2, 3, 1e6),
        ),
        reference="1 : 2 : 3, 30 days",
        measure="model",
        columns=("clicks Recall@20", "clicks Recall@500", "Rele@100_w"),
        needs=("searches", "carts or orders", "returning users"),
        note="Weights of click : cart : order, and the half-life after which an event weighs half; the same in "
        "training and in measuring.",
    ),
    Study(
        "balance",
        "Does the best weight of the triplet term depend on the category?",
        "open question of the paper: the hard/easy balance per category",
        _BETA,
        reference="β 0",
        measure="vbert",
        columns=("nDCG@10",),
        plot="lines",
        tabulate="categories",
        axis="β/α",
        until="vbert",
        note="A query's category is the most frequent one of its positives. The gain is cross-fitted: β is chosen "
        "on one half of the queries, per category and for all, and both choices are compared on the other "
        "half.",
    ),
)  # fmt: skip
STUDIES = {study.name: study for study in _STUDIES}


def find_study(name: str) -> Study:
    """The study of that name. Raises InputError."""
    if name not in STUDIES:
        raise InputError(f"unknown study {name!r}", field="NAME", fix=f"One of: {', '.join(STUDIES)}")
    return STUDIES[name]
