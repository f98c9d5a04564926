"""A text encoder without padding is the padded one, which is what is exported: values and gradients."""

from __future__ import annotations

import pytest
import torch

from mrse_model.config import ModelConfig
from mrse_model.experts import TextEncoder
from mrse_model.layers import ROWS, Dense, Dropout, Packed


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 13, (40,), generator=generator)
    mask = (torch.arange(14) < lengths.unsqueeze(1)).long()
    return torch.randint(1, 50, (40, 14), generator=generator) * mask, mask


def test_a_packed_batch_holds_every_token_once_and_in_order(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, mask = batch
    texts = Packed.of(ids, mask)
    assert len(texts.ids) == len(texts.positions) == int(mask.sum())
    found = [row.flatten().tolist() for part in texts.split(texts.ids.unsqueeze(-1)) for row in part]
    assert [found[i] for i in texts.order.argsort().tolist()] == [
        row[: int(n)].tolist() for row, n in zip(ids, mask.sum(1), strict=True)
    ]
    assert torch.equal(texts.in_batch_order(texts.order), torch.arange(40))


def test_packed_and_padded_agree_to_rounding_with_their_gradients(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(ModelConfig(vocab_size=50, bert_dims=32, dropout=0.0), tokens=16)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ids, mask = batch
    direction = torch.randn(40, 128)
    packed, padded = encoder(ids, mask), encoder.padded(ids, mask)
    assert torch.allclose(packed, padded, atol=1e-5) and packed.std() > 0.1
    parameters = dict(encoder.named_parameters())
    ours, theirs = (
        torch.autograd.grad((vectors * direction).sum(), list(parameters.values())) for vectors in (packed, padded)
    )
    for name, one, other in zip(parameters, ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max().clamp_min(1))), name
    assert all(float(one.abs().max()) > 0 for one in ours)


def test_rows_that_fill_up_belong_to_no_text(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    texts = Packed.of(*batch)
    tokens = torch.ones(len(texts.ids), 2)
    filled = texts.filled(tokens)
    assert (
        len(filled) % ROWS == 0 and 0 < len(filled) - len(tokens) < ROWS and torch.equal(filled[: len(tokens)], tokens)
    )
    assert sum(part.numel() for part in texts.split(filled)) == tokens.numel()
    found = texts.each(filled, lambda some: 3 * some)
    assert torch.equal(found, 3 * filled), "zeros stay zeros"
    assert torch.equal(texts.filled(filled), filled)


def test_dropout_keeps_its_share_and_the_mean_and_nothing_is_dropped_alike() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.1)
    rows = dropout(torch.ones(1003, 301))
    assert float((rows == 0).float().mean()) == pytest.approx(0.1, abs=0.005)
    assert float(rows.mean()) == pytest.approx(1, abs=0.005)
    by_byte = (rows == 0).flatten()[: 8 * 37_000].view(-1, 8).float().mean(0)
    assert float((by_byte - 0.1).abs().max()) < 0.01, "every byte of the random numbers is used alike"
    x = torch.ones(4, 4, requires_grad=True)
    found = dropout(x)
    found.sum().backward()
    assert torch.equal(x.grad, found)
    assert torch.equal(dropout.eval()(x), x)


def test_a_dense_layer_in_low_precision_is_near_the_exact_one_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer, x = Dense(64, 32), torch.randn(100, 64, requires_grad=True)
    exact = layer(x)
    gradient = torch.autograd.grad(exact.square().sum(), [x, layer.weight, layer.bias])
    layer.low_precision = True
    near = layer(x)
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert torch.allclose(near, exact, atol=0.02)
    for low, high in zip(
        torch.autograd.grad(near.square().sum(), [x, layer.weight, layer.bias]), gradient, strict=True
    ):
        assert low.dtype == torch.float32 and float((low - high).norm() / high.norm()) < 0.02
    assert torch.equal(layer.eval()(x), exact)


def test_a_low_result_stays_in_bfloat16_only_where_the_layer_multiplies_in_it() -> None:
    layer, x = Dense(64, 32), torch.randn(10, 64)
    assert layer(x, low=True).dtype == torch.float32
    layer.low_precision = True
    assert layer(x, low=True).dtype == torch.bfloat16 and torch.equal(layer(x, low=True).float(), layer(x))
    assert layer.eval()(x, low=True).dtype == torch.float32
