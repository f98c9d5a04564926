# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the experts know, and what a history changes
#
# The exported model alone, without torch or a server: `make demo` puts one into `vespa_app/models`. A small generated catalogue is
# encoded; then two questions: how much does each expert decide, and where does a user's history move a query?
#
# The source is `notebooks/experts_and_history.py`; `jupytext --to ipynb` and `papermill` make the executed notebook.

# %%
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from mrse_model.data.contract import read_catalogue
from mrse_model.images.encoders import load_encoder
from mrse_model.images.extract import extract
from mrse_model.images.features import FeatureFile
from mrse_model.sample.catalogue import write_sample
from mrse_model.serving.exported_model import ExportedModel, QueryHistory, history_arrays, open_session
from mrse_model.serving.texts import token_matrix

while not Path("vespa_app").is_dir():  # a notebook runs in its own folder
    os.chdir("..")
work = Path("build/experts")
shutil.rmtree(work, ignore_errors=True)

# %%
sample = write_sample(work, items=600)
model = ExportedModel.load("vespa_app/models")
encoder = model.manifest.image_encoder
extract(sample.items, work / "features.parquet", load_encoder(encoder.name, encoder.size), progress=False)
catalogue = read_catalogue(sample.items)
features = FeatureFile(work / "features.parquet").matrix(catalogue.ids)
vectors = model.item_vectors(catalogue.titles, catalogue.categories, features)
vectors.embedding.shape

# %% [markdown]
# ## A map of the catalogue
# The items' 128 numbers, projected to their two main directions. What is near on the map is near for the search, as far as two of
# 128 directions can show it.

# %%
centre = vectors.embedding.mean(0)
_, _, directions = np.linalg.svd(vectors.embedding - centre, full_matrices=False)


def on_map(some):
    """Vectors [n, 128] to places [n, 2]."""
    return (some - centre) @ directions[:2].T


places = on_map(vectors.embedding)
broad = np.array([path[0] for path in catalogue.categories])
figure, axes = plt.subplots(figsize=(7, 5))
for name in sorted(set(broad)):
    axes.scatter(*places[broad == name].T, s=12, label=name)
axes.legend()
axes.set(title="600 items by their embedding", xlabel="first direction", ylabel="second direction")
plt.show()

# %% [markdown]
# ## A user with a history
# Someone who clicked often and is not a bot (the sample plants a few spammers, whose ids begin with `bot`; training leaves them out).

# %%
log = pq.read_table(sample.searches).to_pandas()
users = log[~log.user_id.astype(str).str.startswith("bot") & log.clicked.map(len).gt(0)]
user = users.user_id.value_counts().index[0]
mine = users[users.user_id == user].sort_values("timestamp")
row_of = {item_id: row for row, item_id in enumerate(catalogue.ids)}
clicked = [row_of[item_id] for items in mine.clicked for item_id in items][::-1][: model.manifest.history_length]
history = QueryHistory(
    text=vectors.text_feature[clicked],
    image=vectors.image_embedding[clicked],
    weight=np.ones(len(clicked), np.float32),
)
pd.Series([catalogue.titles[row] for row in clicked[:8]], name=f"{user} clicked last")

# %%
queries = ["dress", "shoes", "bag", "mug", "lamp"]
alone = model.query_vectors(queries)
known_user = model.query_vectors(queries, [history] * len(queries))
figure, axes = plt.subplots(figsize=(7, 5))
axes.scatter(*places.T, s=6, color="#cccccc")
axes.scatter(*places[clicked].T, s=40, color="#d95f02", label=f"clicked by {user}")
for text, start, end in zip(queries, on_map(alone), on_map(known_user), strict=True):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#1b9e77", "lw": 2})
    axes.text(*start, text)
axes.legend()
axes.set(title="Where the history moves five queries", xlabel="first direction", ylabel="second direction")
plt.show()

# %% [markdown]
# ## How much each expert decides
# `query_experts.onnx` gives the query's vector as if one expert were silent. The bars: how far the cosine to the best item falls
# without it, for many queries of the log, with a 95 % bootstrap interval over queries.

# %%
texts = list(dict.fromkeys(log["query"]))[:200]
experts = open_session(model.folder / model.manifest.models["query_experts"].file, 1)
names = [output.name for output in experts.get_outputs()]
ids, mask = token_matrix(model._tokenizer, texts, model.manifest.query_tokens)
tokens = {"input_ids": ids, "attention_mask": mask}
past = history_arrays([history] * len(texts), model.manifest.history_length, model.manifest.dims)
kinds = {port.name: np.float32 if "float" in port.type else np.int64 for port in experts.get_inputs()}
without = dict(zip(names, experts.run(names, {n: v.astype(kinds[n]) for n, v in (tokens | past).items()}), strict=True))
whole = model.query_vectors(texts, [history] * len(texts))
best = vectors.embedding[(whole @ vectors.embedding.T).argmax(1)]
loss = {name.removeprefix("without_"): ((whole - found) * best).sum(1) for name, found in without.items()}

rng = np.random.default_rng(0)
rows = []
for name, values in loss.items():
    draws = values[rng.integers(0, len(values), (1000, len(values)))].mean(1)
    rows.append((name, values.mean(), *np.quantile(draws, [0.025, 0.975])))
shares = pd.DataFrame(rows, columns=["expert", "mean", "low", "high"]).sort_values("mean")
figure, axes = plt.subplots(figsize=(7, 3))
spread = [shares["mean"] - shares.low, shares.high - shares["mean"]]
axes.barh(shares.expert, shares["mean"], xerr=spread, color="#8fb3d9", capsize=3)
axes.set_xlabel("cosine lost without the expert, 95 % interval")
plt.show()
shares.round(4)
