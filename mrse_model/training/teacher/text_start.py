"""The BERTs' start from another's weights (`--text-init`): a small BERT of transformers, as BERT-tiny (Turc et al.
2019), becomes Light-Bert and VBert's text half.

Ours are pre-norm, a BERT is post-norm: it normalises the sum of what goes into a layer and of what comes out of it, we
only what goes in. What can be taken over as it is: the embeddings of positions, the vectors of its tokens, and the
first matrices of each half of a layer (queries, keys and values; the first of the feed-forward). The second ones add to
a sum that a BERT would have normalised since, so their rows are divided by how much each dimension has been scaled on
the way, and each of our norms is set, by least squares over a sample of the catalogue's texts, so that a layer reads
what the source's reads. The first layer's attention reads it exactly, the last state nearly: over texts that both cut
into the same tokens, cosines of the first two layers of all-MiniLM-L6-v2 correlate by 0.98 with ours, of all six by
0.68 (dev/LOG.md).

n = texts, t = tokens, w = width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from mrse_model.config import ModelConfig
from mrse_model.errors import InputError
from mrse_model.experts import Block, TextEncoder, masked_mean, padding_bias
from mrse_model.model import MRSE
from mrse_model.serving.texts import SPECIAL
from mrse_model.teacher.encoders import load_transformers, source_of, weights_fingerprint
from mrse_model.training.ngrams import MARK
from mrse_model.training.teacher.table import principal_axes, token_texts

SAMPLE = 250  # items, and queries, by whose texts the norms are set
FLOOR = 0.5  # of the median: no dimension counts for less when a sum's scale is divided out, or few would make it
CONTINUES = "##"  # before a token of the source that continues a word
OPTION = "--text-init"


class SourceBert:
    """A BERT of transformers and its tokenizer. fingerprint: 16 hex digits over its weights.

    Raises InputError where there is none of this name, or it is no BERT; MissingExtra for a package that is not
    installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokenizer, self.model = load_transformers(name, source_of(name), torch.float32, "BERT", OPTION)
        self.config: Any = self.model.config
        if self.config.model_type != "bert":
            fix = "Give a BERT, for example google/bert_uncased_L-2_H-128_A-2"
            raise InputError(f"{name!r} is of type {self.config.model_type}, not bert", field=OPTION, fix=fix)
        self.fingerprint = weights_fingerprint(self.model)

    def require(self, size: ModelConfig) -> None:
        """Raises InputError where its shape is not that of our BERTs, with the settings that would be right."""
        config = self.config
        ours = {"bert_dims": size.bert_dims, "bert_layers": size.bert_layers, "bert_heads": size.bert_heads}
        theirs = {
            "bert_dims": config.hidden_size,
            "bert_layers": config.num_hidden_layers,
            "bert_heads": config.num_attention_heads,
        }
        wrong = [name for name in ours if ours[name] != theirs[name]]
        if wrong:
            has, have = (", ".join(f"{name} = {of[name]}" for name in wrong) for of in (theirs, ours))
            fix = f"Set {has} under [model] in --settings, or give a BERT of another shape"
            raise InputError(f"{self.name!r} has {has}; the settings have {have}", field=OPTION, fix=fix)
        if config.intermediate_size != 4 * config.hidden_size:
            problem = f"{self.name!r} has feed-forward layers of {config.intermediate_size}, ours have 4 · bert_dims"
            fix = f"Give a BERT whose intermediate_size is {4 * config.hidden_size}"
            raise InputError(problem, field=OPTION, fix=fix)
        if not config.hidden_act.startswith("gelu"):
            problem, fix = f"{self.name!r} has {config.hidden_act} between its layers", "Give a BERT with gelu"
            raise InputError(problem, field=OPTION, fix=fix)
        if config.max_position_embeddings < size.item_tokens:
            problem = f"{self.name!r} has {config.max_position_embeddings} positions, the settings {size.item_tokens}"
            fix = f"Set item_tokens to {config.max_position_embeddings} or less under [model] in --settings"
            raise InputError(problem, field=OPTION, fix=fix)
        if not {"light_bert", "vbert"} & set(size.experts):
            problem = f"model.experts has neither light_bert nor vbert, which {OPTION} starts"
            raise InputError(problem, field=OPTION, fix=f"Add one of them, or leave {OPTION} out")

    def token_vectors(self, tokenizer: Tokenizer) -> Tensor:
        """The mean of the source's tokens of each of our tokens, float32 [V, w]. A token from within a word is the
        source's that continues a word, where there is one.
        """
        theirs, vocabulary = self.tokenizer, self.tokenizer.get_vocab()
        special = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id)
        texts = token_texts(tokenizer)
        cut = theirs(texts, add_special_tokens=False)["input_ids"]
        weight = self.model.embeddings.word_embeddings.weight.detach()
        out = torch.empty(len(texts), weight.shape[1])
        for index, (text, some) in enumerate(zip(texts, cut, strict=True)):
            token = tokenizer.id_to_token(index) or ""
            within = None if token.startswith(MARK) else vocabulary.get(CONTINUES + text)
            if index < len(SPECIAL):
                some = [special[index]]
            elif within is not None:
                some = [within]
            out[index] = weight[some or [theirs.unk_token_id]].mean(0)
        return out


@torch.no_grad()
def start_texts(
    model: MRSE, source: SourceBert, item_tokens: NDArray[np.int32], query_tokens: NDArray[np.int64], seed: int
) -> None:
    """Starts the text encoders of both towers from the source. item_tokens [N, t], query_tokens [Q, u]: padded with 0;
    the texts by which norms are set are drawn from them.
    """
    rng, wide = np.random.default_rng(seed), max(item_tokens.shape[1], query_tokens.shape[1])
    drawn = (rows[rng.permutation(len(rows))[:SAMPLE]] for rows in (item_tokens, query_tokens))
    texts = np.concatenate([np.pad(rows, ((0, 0), (0, wide - rows.shape[1]))) for rows in drawn]).astype(np.int64)
    ids = torch.from_numpy(texts[:, : int((texts != 0).sum(1).max())])
    start_encoder(model.item.light_bert, source, model.tokenizer, ids)
    start = model.item.light_bert.state_dict()
    for tower in (model.query, model.item):
        for encoder in (tower.vbert_text, tower.light_bert):
            position = start["position.weight"][: len(encoder.position.weight)]
            encoder.load_state_dict({**start, "position.weight": position})


@torch.no_grad()
def start_encoder(encoder: TextEncoder, source: SourceBert, tokenizer: Tokenizer, ids: Tensor) -> None:
    """Starts one encoder from the source; ids [n, t], padded with 0: texts by which its norms are set.

    Its vector of a text is then nearly the source's mean over the tokens, less that mean over all these texts, in its
    principal axes, and the attention over the tokens starts at 0.
    """
    theirs: dict[str, Tensor] = source.model.state_dict()
    there, bias = ids != 0, padding_bias((ids != 0).long()).unsqueeze(1)

    # ---- Embeddings, as large as ours start (TextEncoder): every norm after them takes the scale out.
    encoder.embed.weight.copy_(source.token_vectors(tokenizer))
    position = theirs["embeddings.position_embeddings.weight"][: len(encoder.position.weight)]
    encoder.position.weight.copy_(position + theirs["embeddings.token_type_embeddings.weight"][0])
    state = encoder.embed.weight[ids] + encoder.position.weight[: ids.shape[1]]
    scale = 1 / float(state[there].std(-1, correction=0).mean())
    for part in (encoder.embed, encoder.position):
        part.weight.mul_(scale)
    ours, target = scale * state, _normed(state, theirs, "embeddings.LayerNorm")

    # ---- Layers: `ours` is our sum, `target` what the source has in its place, [n, t, w].
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, Block)
        for norm, second, branch, after in _halves(block, theirs, f"encoder.layer.{index}.", bias):
            slope = _set_norm(norm, ours, target, there)
            least = FLOOR * slope.abs().median()
            slope = torch.where(slope.abs() < least, torch.where(slope < 0, -least, least), slope)
            ours = ours + branch(norm(ours)) / slope
            target = _normed(target + branch(target), theirs, after)
            second.weight.div_(slope.unsqueeze(1))
            second.bias.div_(slope)

    # ---- A text's vector: the mean of the last state.
    _set_norm(encoder.norm, ours, target, there)
    for weight in encoder.attention.value.parameters():
        weight.zero_()
    means = masked_mean(encoder.norm(ours), there.float())
    centred = means - means.mean(0)
    axes = torch.from_numpy(principal_axes(centred.numpy(), len(encoder.out.weight))).T
    axes = axes / (centred @ axes.T).square().mean().sqrt().clamp_min(1e-6)
    encoder.out.weight.zero_()
    encoder.out.weight[: len(axes)] = axes
    encoder.out.bias.copy_(-(encoder.out.weight @ means.mean(0)))


def _halves(
    block: Block, theirs: dict[str, Tensor], prefix: str, bias: Tensor
) -> Iterator[tuple[nn.LayerNorm, nn.Linear, Callable[[Tensor], Tensor], str]]:
    """Gives a block the matrices of a layer of the source. Yields its two halves: the norm that reads for it, its
    second matrix, what it computes of a normalised sum, and the name of the source's norm after it.
    """

    def copy(layer: nn.Linear, *names: str) -> None:
        for kind, parameter in layer.named_parameters():
            parameter.copy_(torch.cat([theirs[f"{prefix}{name}.{kind}"] for name in names]))

    copy(block.qkv, *(f"attention.self.{name}" for name in ("query", "key", "value")))
    copy(block.out, "attention.output.dense")
    copy(block.up, "intermediate.dense")
    copy(block.down, "output.dense")
    yield (
        block.norm1,
        block.out,
        lambda x: block.out(block.attend(block.qkv(x), bias)),
        f"{prefix}attention.output.LayerNorm",
    )
    yield block.norm2, block.down, lambda x: block.down(F.gelu(block.up(x))), f"{prefix}output.LayerNorm"


def _normed(state: Tensor, theirs: dict[str, Tensor], name: str) -> Tensor:
    """What the source's norm of this name makes of a sum [n, t, w]."""
    return F.layer_norm(state, state.shape[-1:], theirs[f"{name}.weight"], theirs[f"{name}.bias"], eps=1e-12)


def _set_norm(norm: nn.LayerNorm, ours: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """Sets a norm's weight and bias by least squares, so that norm(ours) is nearly the target, at the tokens that are
    there [n, t]. Returns how fast the target changes with ours in each dimension, [w].
    """
    plain, wanted = F.layer_norm(ours, ours.shape[-1:])[there], target[there]
    mean, centred = plain.mean(0), plain - plain.mean(0)
    weight = (centred * wanted).mean(0) / centred.square().mean(0).clamp_min(1e-6)
    norm.weight.copy_(weight)
    norm.bias.copy_(wanted.mean(0) - weight * mean)
    return weight / ours[there].std(-1, correction=0).mean()
