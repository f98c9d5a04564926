# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A study, with intervals
#
# Does the hybrid loss pay, beside each of its terms alone? `mrse study loss` asks it of a whole catalogue; this notebook runs the same
# study in Python on a small generated one, with trainings of a minute. So the figures say how a study is read, not how good the model
# is: [docs/quality.md](../docs/quality.md) has those.
#
# The source is `notebooks/a_study.py`; `jupytext --to ipynb` and `papermill` make the executed notebook.

# %%
import os
import shutil
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress")  # of tqdm, about widgets

import matplotlib.pyplot as plt
import pandas as pd
from rich.console import Console

from mrse_model.config import overlay, preset
from mrse_model.sample.catalogue import write_sample
from mrse_model.studies.registry import STUDIES
from mrse_model.studies.runner import run_study
from mrse_model.studies.study import Data

while not Path("vespa_app").is_dir():  # a notebook runs in its own folder
    os.chdir("..")
work = Path("build/study")
shutil.rmtree(work, ignore_errors=True)

# %%
sample = write_sample(work / "sample", items=400, users=60, searches=900)
study = STUDIES["loss"]
print(study.question)
pd.DataFrame([{"variant": v.name, "settings": v.settings} for v in study.variants])

# %% [markdown]
# Short stages, all on one thread: the same seed then gives the same figures.

# %%
stages = {name: {"max_steps": 40, "batch": 128} for name in ("adaptor", "ft_att", "light_bert", "vbert", "dssm")}
config = overlay(preset("tiny"), {"train": {"threads": 1, "evaluate_every": 20, **stages}})
data = Data(sample.items, sample.judgments_val, sample.searches, sample.judgments)
results = run_study(study, data, work / "loss", config, console=Console(quiet=True))
print(results.table())

# %% [markdown]
# ## Means with their 95 % intervals
# Bootstrap over queries: how much the mean would differ with other queries of the same kind. Two intervals that overlap say little;
# the paired differences below say more, because each query is compared with itself.

# %%
columns = [c for c in results.columns if all(c in row.measures for row in results.rows)][:4]
figure, axes = plt.subplots(1, len(columns), figsize=(10, 3), sharey=True)
for axis, column in zip(axes, columns, strict=True):
    for place, row in enumerate(results.rows):
        found = row.measures[column]
        spread = [[found.mean - found.low], [found.high - found.mean]]
        axis.errorbar(found.mean, place, xerr=spread, fmt="o", capsize=4)
    axis.set_title(column)
axes[0].set_yticks(range(len(results.rows)), [row.name for row in results.rows])
plt.tight_layout()
plt.show()

# %%
print(results.differences())
