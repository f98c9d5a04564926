"""Towers: shapes, unit norm, what an absent modality does; the checkpoint gives the same model back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mrse_model.config import ModelConfig  # noqa: E402
from mrse_model.errors import InputError  # noqa: E402
from mrse_model.experts import Adaptor, HistoryExpert, ImageHistory, TokenAttention  # noqa: E402
from mrse_model.model import MRSE  # noqa: E402
from mrse_model.serving.exported_model import QueryHistory  # noqa: E402
from tests.helpers.small_model import TITLES, small  # noqa: E402


@pytest.fixture(scope="module")
def model() -> MRSE:
    return small()


def history(n: int, seed: int = 0) -> QueryHistory:
    rng = np.random.default_rng(seed)
    text, image = (rng.normal(size=(n, 128)).astype(np.float32) for _ in range(2))
    return QueryHistory(text, image, np.ones(n, np.float32))


def test_vectors_have_unit_norm_and_the_contract_s_shapes(model: MRSE) -> None:
    queries = model.query_vectors(["red dress", "", "東京"], [history(3), None, history(30)])
    features = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    features[1] = np.nan
    items = model.item_vectors(TITLES[:2], [["Clothes"], []], features, [["red dress"], []])
    assert queries.shape == (3, 128) and items.embedding.shape == (2, 128)
    for vectors in (queries, items.embedding, items.image_embedding[:1], items.text_feature):
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.isnan(items.image_embedding[1]).all()


def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(model: MRSE) -> None:
    texts = ["red dress", "blue denim jacket with a very long text of many words after it"]
    alone = np.concatenate([model.query_vectors([text]) for text in texts])
    assert model.query_vectors(texts) == pytest.approx(alone, abs=1e-5)


def test_history_changes_the_query_and_its_padding_does_not(model: MRSE) -> None:
    some = history(3)
    padded = QueryHistory(
        np.concatenate([some.text, np.full((2, 128), 7, np.float32)]),
        np.concatenate([some.image, np.full((2, 128), 7, np.float32)]),
        np.array([1, 1, 1, 0, 0], np.float32),
    )
    plain, with_history = model.query_vectors(["red dress"] * 2, [None, some])
    assert np.abs(plain - with_history).max() > 1e-3
    assert model.query_vectors(["red dress"], [padded])[0] == pytest.approx(with_history, abs=1e-4)


@pytest.mark.parametrize("left_out", ["vbert", "light_bert", "ft_att", "history"])
def test_an_expert_that_is_left_out_is_zeros(left_out: str) -> None:
    rest = tuple(e for e in ("vbert", "light_bert", "ft_att", "history") if e != left_out)
    model = small(experts=rest)
    ids = torch.tensor([[2, 5, 3]])
    texts = model.query.texts(model.ngrams, ids, torch.ones_like(ids))
    experts = model.query.all_experts(texts, torch.randn(1, 2, 128), torch.randn(1, 2, 128), torch.ones(1, 2))
    *norms, preference = experts[0].norm(dim=-1).tolist()
    norms = dict(zip(("vbert", "light_bert", "ft_att", "history"), norms, strict=True))
    assert (preference == 0) == (left_out == "history")
    assert norms.pop(left_out) == 0
    assert list(norms.values()) == pytest.approx([1] * 3, abs=1e-4)


def test_ft_att_of_the_query_is_the_mean_of_its_pieces(model: MRSE) -> None:
    """Paper, traps: token attention is in the item tower only; CLS, SEP and padding have no n-grams."""
    ids = torch.tensor([[2, 5, 9, 3, 0]])
    found = model.query.ft_att(model.ngrams, ids, (ids != 0).long())[0]
    want = model.ngrams.project(model.ngrams.table.weight[[5, 9]]).mean(0)
    assert torch.allclose(found, want, atol=1e-5)


def test_pooling_before_the_layers_is_attention() -> None:
    """TokenAttention.pooled equals the attention that puts every token through the layers, its gradients too."""
    torch.manual_seed(0)
    attention = TokenAttention(8)
    query, tokens, bias = torch.randn(3, 8), torch.randn(3, 5, 8, requires_grad=True), torch.zeros(3, 5)
    bias[0, 3:] = -1e4
    gradients = []
    for found in (
        attention.pooled(query, tokens, bias),
        attention(query.unsqueeze(1), tokens, bias.unsqueeze(1)).squeeze(1),
    ):
        gradients.append((found, *torch.autograd.grad(found.square().sum(), [tokens])))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_image_is_read_by_its_largest_components() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(400, 3)).astype(np.float32)
    features = hidden @ rng.normal(size=(3, 12)).astype(np.float32) + 0.01 * rng.normal(size=(400, 12))
    features[:, 4] *= 1000  # a channel of another scale counts as much as the others
    adaptor = Adaptor(ModelConfig(image_dims=12, image_components=5))
    adaptor.start(features.astype(np.float32))
    found = adaptor.components(torch.from_numpy(features).float()).numpy()
    spread = found.std(0)
    assert found.shape == (400, 5) and (np.diff(spread) <= 1e-4).all()
    assert np.square(spread[:3]).sum() == pytest.approx(12, rel=0.02)  # three directions hold all of 12 channels
    assert np.corrcoef(found[:, :3].T)[np.triu_indices(3, 1)] == pytest.approx(0, abs=0.02)


def test_a_checkpoint_gives_the_same_model_back(model: MRSE, tmp_path: Path) -> None:
    model.meta = {"metrics": {"Recall@100": 0.5}}
    again = MRSE.from_pretrained(model.save_pretrained(tmp_path))
    assert again.config == model.config and again.meta == model.meta
    assert np.array_equal(again.query_vectors(["red dress"]), model.query_vectors(["red dress"]))


def test_a_checkpoint_that_lacks_a_file_or_does_not_fit_says_so(model: MRSE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("dssm_hidden = 256", "dssm_hidden = 64"))
    with pytest.raises(InputError, match=r"model.safetensors: does not fit its config"):
        MRSE.from_pretrained(tmp_path)
    config.write_text("[loss]\nsoft_temperature = 0.1\n")  # as an older version called it
    with pytest.raises(InputError, match=r"config.toml, field loss.soft_temperature: .* another version .* mrse train"):
        MRSE.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="the checkpoint lacks this file"):
        MRSE.from_pretrained(tmp_path)


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-9])
def test_padding_does_not_change_what_a_history_says(weight: float) -> None:
    """However old the events are."""
    torch.manual_seed(0)
    size = ModelConfig(dims=8)
    text, entries = torch.randn(1, 8), torch.randn(1, 3, 8)
    weights = torch.tensor([[1.0, 0.5, 0.1]]) * weight
    padded, zeros = torch.nn.functional.pad(entries, (0, 0, 0, 17)), torch.nn.functional.pad(weights, (0, 17))
    history, images = HistoryExpert(size), ImageHistory(size)
    history.requires_grad_(False), images.requires_grad_(False)
    alone, filled = history(text, entries, weights), history(text, padded, zeros)
    assert torch.allclose(alone, filled, atol=1e-6) and alone.norm() > 0.1
    for short, long in zip(images(text, entries, entries, weights), images(text, padded, padded, zeros), strict=True):
        assert torch.allclose(short, long, atol=1e-6) and short.norm() == pytest.approx(1)
    assert torch.equal(history(text, padded, zeros * 0), history.empty[None])
