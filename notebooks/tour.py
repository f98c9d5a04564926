# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour: from Parquet to personal, multimodal search
#
# Needs an exported model in `vespa_app/models`: `make demo` puts one there. Everything else it makes itself, in
# `build/tour`: a catalogue with drawn images, the embedded engine on a free port, a fed index.
#
# The source is `notebooks/tour.py`; `jupytext --to ipynb notebooks/tour.py` and `papermill` make the executed
# notebook.

# %%
import io
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from IPython.display import display
from PIL import Image
from vespa.application import Vespa

from feeders.feed import feed_items
from feeders.image_features import ExtractedFeatures
from feeders.item_queries import ItemQueries
from feeders.items import ItemSource
from feeders.shoppers import ShopperSource, feed_shoppers
from local_vespa.testing import deploy, free_port, start
from mrse_model.images.encoders import load_encoder
from mrse_model.images.extract import extract
from mrse_model.sample.catalogue import write_sample
from mrse_model.serving.exported_model import ExportedModel
from retrieval.embed_producer import EmbedProducer
from retrieval.filters import Filter
from retrieval.searcher import Searcher
from retrieval.warm import curve, read_log, warm, window
from vespa_package.fields import DocumentType

while not Path("vespa_app").is_dir():  # a notebook runs in its own folder
    os.chdir("..")
work = Path("build/tour")
shutil.rmtree(work, ignore_errors=True)

# %% [markdown]
# ## A catalogue
# Items with images, and the searches of users with planted preferences. `title` sometimes leaves the colour out:
# only the image shows it.

# %%
sample = write_sample(work, items=600)
items = pq.read_table(sample.items)
items.select(["item_id", "title", "category", "colour", "price"]).slice(0, 5).to_pandas()

# %%
images = dict(zip(items["item_id"].to_pylist(), items["image"].to_pylist(), strict=True))


def sheet(item_ids, side=64):
    """The images of some items beside each other."""
    page = Image.new("RGB", (side * len(item_ids), side), "white")
    for n, item_id in enumerate(item_ids):
        if images[item_id]:
            page.paste(Image.open(io.BytesIO(images[item_id])).resize((side, side)), (n * side, 0))
    return page


sheet(items["item_id"].to_pylist()[:8])

# %% [markdown]
# ## The model and the images' features
# The exported model needs no torch. The frozen image encoder ran once, over the whole catalogue, when the model
# was trained; here it runs on these 600.

# %%
model = ExportedModel.load("vespa_app/models")
encoder = model.manifest.image_encoder
features = extract(sample.items, work / "features.parquet", load_encoder(encoder.name, encoder.size), progress=False)
print(model.manifest.model_version, encoder, features.items, features.distinct)

# %% [markdown]
# ## The engine, the application package, the feed
# The same three commands work on a real Vespa: only the URLs change.

# %%
port = free_port()
engine = start(work / "engine", port)
url = f"http://127.0.0.1:{port}"
deploy(url, Path("vespa_app"))["message"]

# %%
vespa = Vespa(url)
source = ItemSource.open(
    sample.items,
    DocumentType.load("vespa_app"),
    model,
    ExtractedFeatures(features.path, model.manifest),
    item_queries=ItemQueries(model.manifest, sample.searches, sample.judgments),
)
fed = feed_items(vespa, source, work / "items.sqlite")
shoppers = feed_shoppers(vespa, ShopperSource(sample.searches), work / "shoppers.sqlite")
print(fed, shoppers)

# %% [markdown]
# ## Search
# By text; the vector is made here (`model=`), or in Vespa by `embed(text, @query)` when there is no model at hand.

# %%
log = read_log(sample.searches)
searcher = Searcher(vespa, model=model, deadline=10, clock=lambda: float(log.at[-1]))  # as of the log's end


def show(result):
    """The hits as a table, and their images."""
    display(sheet([hit.item_id for hit in result.hits]))
    rows = [
        {"title": h.title, "category": h.category[-1], "score": round(h.score, 4), **h.features} for h in result.hits
    ]
    return pd.DataFrame(rows)


show(searcher.search("red dress", hits=6))

# %% [markdown]
# With filters, as data: their strings travel as parameters.

# %%
show(searcher.search("red dress", hits=6, filters=[Filter("price", "<=", (60,)), Filter("in_stock", "=", (True,))]))

# %% [markdown]
# Words and vectors, fused by rank.

# %%
show(searcher.search("red dress", hits=6, profile="hybrid"))

# %% [markdown]
# ## A user
# The last clicks are in the `shopper` document. The history goes into the query tower, and into two more recall
# queues: the clicked items'
# neighbours, and their images' neighbours. One YQL, three labels; the features say which queue found what.

# %%
users = pq.read_table(sample.searches).to_pandas()["user_id"].value_counts()
busiest = next(user for user in users.index if not user.startswith("bot"))  # the sample plants spammers, too
clicked = [event.item_id for event in searcher.events(busiest)]
sheet([item_id for item_id in clicked if item_id in images][:8])

# %%
show(searcher.search("dress", hits=6, user=busiest, profile="three_queues"))

# %% [markdown]
# ## The query cache
# Queries computed ahead, an LRU in memory, the tower for the rest. The curve: warm
# on the log but its last tenth, asked for that tenth.

# %%
n = warm(model, log, window(log, last=5000).start, work / "queries.arrow")
producer = EmbedProducer(model, precomputed=work / "queries.arrow")
print(n, "queries")
points = pd.DataFrame(curve(log))
points

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3))
for days, some in points.groupby("days"):
    axes.plot(some["size"], some["hit_rate"], "o-", label=f"{days:.0f} days of history")
axes.set(xscale="log", xlabel="queries in the cache", ylabel="hit rate", ylim=(0, 1))
axes.legend()
plt.show()

# %%
searcher.close()
engine.terminate()
engine.wait()
