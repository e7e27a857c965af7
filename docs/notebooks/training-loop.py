# %% [markdown]
# # Bring your own training loop
# A training is a generator of steps, and a step that trains is a generator of events. So a loop of your own can look at
# every batch, log what it likes, or leave out a step.

# %% tags=["parameters"]
SETTINGS = {}

# %%
from sklearn.datasets import load_iris

from unfreeze import Tables

load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
estimator = Tables("iris.csv", target="target", split="random", trees=False, **SETTINGS)

# %% [markdown]
# The same three calls train images: a modality prepares the data of a spec and binds them to it.

# %%
from pathlib import Path

from unfreeze.models.recipe.modality import modality
from unfreeze.models.recipe.run import Train, run_recipe
from unfreeze.models.store.workspace import Workspace

tables, workspace = modality("tables"), Workspace(Path(".unfreeze").absolute())
data = tables.bind(estimator.spec, tables.prepare(estimator.spec, workspace))

losses, validated = [], []
for step in run_recipe(data, workspace):
    print(step.name)
    if not isinstance(step, Train):
        found = step.run()
        continue
    for event in step.run():
        if event.kind == "batch":
            losses.append((event.step, float(event.loss)))
        elif event.kind == "epoch":
            validated.append((event.step, event.metrics["loss"]))

# %%
import matplotlib.pyplot as plt

plt.plot(*zip(*losses, strict=True), label="batch")
plt.plot(*zip(*validated, strict=True), label="validation rows")
plt.legend()
plt.xlabel("step")
plt.ylabel("loss")

# %% [markdown]
# The kept model is written as a folder, which `load_model`, `unfreeze predict` and MLflow read.

# %%
from unfreeze import load_model

data.save(Path("iris-model"), step.state.kept)
load_model("iris-model").score("iris.csv")
