"""A teacher of texts and images: an item's vector is of both, images are encoded once, and VBert learns from them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mrse_cli.main import app
from mrse_model.config import Config, LossConfig, overlay, write_config
from mrse_model.data.example_files import PSEUDO
from mrse_model.errors import InputError
from mrse_model.images.encoders import FrozenEncoder
from mrse_model.images.extract import extract
from mrse_model.images.features import FeatureFile
from mrse_model.model import MRSE
from mrse_model.sample.catalogue import write_sample
from mrse_model.teacher.encoders import load_teacher
from mrse_model.training.claim import claim_of, equal_parts
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.pipeline import Inputs, train
from mrse_model.training.ragged import Ragged
from mrse_model.training.stages.experts import VBertStage
from mrse_model.training.teacher.pairs import add_images, centre, mean_of
from mrse_model.training.teacher.taught import Taught, TeacherVectors
from tests.helpers.random_teacher import random_pair
from tests.helpers.small_runs import few_steps
from tests.helpers.small_stages import small_fusion


def draw(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_items(path: Path, titles: Sequence[str], images: Sequence[bytes | None] | None) -> Path:
    columns: dict[str, Any] = {"item_id": [f"i{n}" for n in range(len(titles))], "title": list(titles)}
    if images is not None:
        columns["image"] = pa.array(images, pa.binary())
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_an_items_vector_is_of_its_text_and_its_image(tmp_path: Path, kind: str) -> None:
    name, titles = random_pair(tmp_path / "pair", kind), ["red dress"] * 3 + ["steel mug", "lawn mower", "blue shirt"]
    images = [draw(1), draw(2), None, draw(3), draw(4), draw(1)]
    items = write_items(tmp_path / "items.parquet", titles, images)
    vectors = TeacherVectors(name, tmp_path / "cache", Console(quiet=True))
    vectors.read_images(items, tmp_path / "none.parquet", "feature")
    row = {f"i{n}": n for n in range(len(titles))}
    taught = vectors.taught(["red dress", "mug"], titles, row, 1.0)
    found = taught.items.astype(np.float32)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-2)

    teacher = load_teacher(name)
    assert teacher.image is not None
    text = teacher.vectors(titles)
    text = (text - text.mean(0)) / np.linalg.norm(text - text.mean(0), axis=1, keepdims=True)
    seen = teacher.image.features([image for image in images if image])
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    seen -= seen.mean(0)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    both = text[0] + seen[0]
    assert np.allclose(found[0], both / np.linalg.norm(both), atol=0.02)
    assert np.allclose(found[2], text[2], atol=0.02)  # without an image: its text alone
    assert np.abs(found[0] - found[1]).max() > 0.05  # the same title, another image
    assert np.allclose(taught.queries[0].astype(np.float32), text[0], atol=0.02)  # queries and tokens are centred, too
    assert np.allclose(vectors.of(["red dress"], "tokens")[0].astype(np.float32), text[0], atol=0.02)


def test_the_gap_between_the_kinds_goes(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 300
    meaning = rng.normal(size=(n, 8))
    texts, images = (meaning + rng.normal(size=(n, 8)) + 20 * axis for axis in (np.eye(8)[0], np.eye(8)[1]))
    unit = [some / np.linalg.norm(some, axis=1, keepdims=True) for some in (texts, images)]
    assert (unit[0] @ unit[0].T).min() > (unit[0] @ unit[1].T).max()  # a text is nearer to any text than to its image
    text = unit[0].astype(np.float16)
    centre(text, mean_of(text))
    columns = {"item_id": [f"i{k}" for k in range(n)], "feature": [*images.astype(np.float32).tolist()]}
    pq.write_table(pa.table(columns, pa.schema([("item_id", pa.string()), ("feature", pa.list_(pa.float32()))])),
                   tmp_path / "f.parquet")  # fmt: skip
    alone, imaged = text.astype(np.float32), text.copy()
    half = {f"i{k}": k for k in range(n // 2)}  # the others have no image
    add_images(imaged, FeatureFile(tmp_path / "f.parquet"), half)
    together = unit[0].copy()  # as it would be without centring
    together[: n // 2] += unit[1][: n // 2]
    together /= np.linalg.norm(together, axis=1, keepdims=True)

    def preferred(queries: np.ndarray, items: np.ndarray) -> float:
        """By how much items without an image are nearer to all other items' texts than those with one."""
        scores = np.where(np.eye(n, dtype=bool), np.nan, queries @ items.T)
        return float(np.nanmean(scores[:, n // 2 :]) - np.nanmean(scores[:, : n // 2]))

    assert preferred(unit[0], together) > 0.2 and abs(preferred(alone, imaged.astype(np.float32))) < 0.02
    with pytest.raises(InputError, match="no item of the catalogue has an image"):
        add_images(imaged, FeatureFile(tmp_path / "f.parquet"), {"other": 0})


def test_the_runs_own_features_serve_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = random_pair(tmp_path / "pair")
    items = write_items(tmp_path / "items.parquet", ["red dress", "mug"], [draw(1), draw(2)])
    vectors = TeacherVectors(name, tmp_path / "cache", Console(quiet=True))
    assert vectors.teacher.image is not None
    made = tmp_path / "features.parquet"
    extract(items, made, vectors.teacher.image)
    write_items(items, ["red dress", "mug"], None)  # then not even images are needed
    vectors.read_images(items, made, "feature")
    assert [path.name for path in (tmp_path / "cache" / "teacher").glob("*.parquet")] == []
    with pytest.raises(InputError, match="the items have no images") as raised:
        vectors.read_images(items, tmp_path / "none.parquet", "feature")
    assert raised.value.field == "image" and "sentence encoder" in str(raised.value.fix)


# ---- whole trainings


def brief() -> Config:
    return overlay(few_steps(), {"train": {"ft_att_taught": {"max_steps": 4, "batch": 32, "extra_negatives": 8}}})


@pytest.fixture
def shop(tmp_path: Path) -> list[str]:
    """The command of a training with a teacher of texts and images."""
    sample = write_sample(tmp_path / "sample", items=150, users=20, searches=80)
    write_config(brief(), tmp_path / "settings.toml")
    name = random_pair(tmp_path / "pair")
    found = ["train", sample.items, "--judgments", sample.judgments, "--preset", "tiny", "--teacher", name]
    found += ["--settings", tmp_path / "settings.toml", "--encoder", "efficientnet-lite0", "--out", tmp_path / "run"]
    return [str(word) for word in found]


def run(command: list[str], **other: str) -> str:
    for option, value in other.items():
        command = [*command, f"--{option}", value]
    result = CliRunner().invoke(app, command)
    if isinstance(result.exception, KeyboardInterrupt):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_killed_training_encodes_the_other_images_alone(
    tmp_path: Path, shop: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, kill = FrozenEncoder.features, list[int](), 2

    def features(self: FrozenEncoder, images: Sequence[Any], pool: Any = None) -> np.ndarray:
        if self.name.startswith("clip:"):
            if len(calls) == kill:
                raise MemoryError("killed")
            calls.append(len(images))
        return real(self, images, pool)

    monkeypatch.setattr(FrozenEncoder, "features", features)
    killed = CliRunner().invoke(app, shop)
    assert isinstance(killed.exception, MemoryError) and len(calls) == kill
    kill = 99
    run(shop)
    distinct = len({digest for digest in pq.read_table(tmp_path / "sample" / "items.parquet", columns=["image"])
                    .column(0).to_pylist() if digest})  # fmt: skip
    assert sum(calls) == distinct and max(calls) <= 64  # each once, a batch at a time
    model = MRSE.from_pretrained(tmp_path / "run")
    assert model.meta["training"]["teacher"] == load_teacher(shop[shop.index("--teacher") + 1]).fingerprint
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any(line["stage"] == "vbert" and line.get("distil", -1) >= 0 for line in lines)
    assert "already trained" in run(shop) and sum(calls) == distinct


def test_the_encoder_of_the_same_name_is_asked_once(
    tmp_path: Path, shop: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = FrozenEncoder.features, list[str]()

    def features(self: FrozenEncoder, images: Sequence[Any], pool: Any = None) -> np.ndarray:
        names.append(self.name)
        return real(self, images, pool)

    monkeypatch.setattr(FrozenEncoder, "features", features)
    name = shop[shop.index("--teacher") + 1]
    command = [name if word == "efficientnet-lite0" else word for word in shop]
    run(command)
    assert set(names) == {name} and len(names) == 3  # 150 items in batches of 64
    assert not list((tmp_path / "run" / "cache" / "teacher").glob("*.parquet"))
    assert MRSE.from_pretrained(tmp_path / "run").meta["image_encoder"]["name"] == name


def test_a_catalogue_without_images_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    items = write_items(tmp_path / "items.parquet", [f"red dress {n}" for n in range(40)], None)
    inputs = Inputs(items, teacher=random_pair(tmp_path / "pair"))
    with pytest.raises(InputError, match="the items have no images"):
        train(inputs, tmp_path / "run", few_steps(), Console(quiet=True))
    assert not (tmp_path / "run" / "cache" / "examples").exists()
    out = io.StringIO()
    alone = overlay(brief(), {"model": {"use_images": False}})
    train(inputs, tmp_path / "run", alone, Console(file=out, width=200), until="ft_att")
    assert "the teacher does not see images either" in out.getvalue()


def test_other_images_are_another_table(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(draw(1))
    columns = {"item_id": ["a"], "title": ["mug"], "image_path": ["image.png"]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "feature": [[1.0]]}), tmp_path / "f.parquet")
    inputs = Inputs(tmp_path / "items.parquet", features=tmp_path / "f.parquet", teacher="clip:x")
    text = replace(inputs, teacher="x")
    before, before_text = claim_of(inputs, few_steps()), claim_of(text, few_steps())
    (tmp_path / "image.png").write_bytes(draw(2) + b"\0")
    assert {"ngrams", "ft_att"}.isdisjoint(equal_parts(before, claim_of(inputs, few_steps())))
    assert before_text == claim_of(text, few_steps())


# ---- what images alone tell is learnt


@pytest.mark.parametrize("liked", [0, 4])
def test_vbert_learns_which_of_two_items_of_one_title_the_teacher_prefers(tmp_path: Path, liked: int) -> None:
    made = small_fusion(tmp_path)
    tokens = made.corpus.item_tokens.copy()
    tokens[4] = tokens[0]  # the same title, another image
    queries, items = np.zeros((5, 8), np.float16), np.zeros((5, 8), np.float16)
    queries[:, 0], items[:, 1], items[liked, :2] = 1, 1, (1, 0)
    known = replace(made.corpus.queries, known=Ragged.of([[2]] * 5))  # neither of the two is masked
    corpus = replace(made.corpus, item_tokens=tokens, queries=known, taught=Taught(queries, items, 1.0))
    model = made.model
    loss = LossConfig(pseudo_contrast=0.0, distil=1.0, beta=0.0)
    model.config = replace(model.config, loss=loss)
    vectors = FrozenVectors(model, corpus, torch.device("cpu"), tmp_path)
    vectors.embed_images()
    stage = VBertStage(made.run, vectors)
    batch = corpus.examples.read(0, corpus.examples.count)
    batch["kind"] = PSEUDO
    batch["target_item"] = 2
    model.train()
    optimizer = torch.optim.Adam(stage.modules.parameters(), 3e-3)
    for step in range(60):
        optimizer.zero_grad()
        stage.loss(batch, np.random.default_rng(step))["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        asked = stage.encode_queries(*vectors.query_tokens(np.array([0])))
        pair = stage.encode_items(*vectors.item_tokens(np.array([0, 4])), np.array([0, 4]))
    scores = torch.cosine_similarity(asked, pair)
    assert (scores[0] > scores[1] + 0.05) == (liked == 0)
    assert (scores[1] > scores[0] + 0.05) == (liked == 4)
