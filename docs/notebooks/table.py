# %% [markdown]
# # A table: from CSV to champion

# %% tags=["parameters"]
SETTINGS = {}

# %%
from sklearn.datasets import load_diabetes

load_diabetes(as_frame=True).frame.to_csv("diabetes.csv", index=False)

# %% [markdown]
# A network (TabM) and gradient-boosted trees are trained on the same rows; the better one is kept, or both together.

# %%
from unfreeze import Tables, load_model

model = Tables("diabetes.csv", target="target", test_fraction=0.2, **SETTINGS).fit()
model

# %% [markdown]
# A prediction with an interval that holds the truth in nine of ten rows, and what it rests on.

# %%
patient = {"age": 0.04, "sex": 0.05, "bmi": 0.06, "bp": 0.02} | {f"s{number}": 0.0 for number in range(1, 7)}
model.predict_frame(patient, coverage=0.9)

# %%
model.explain("diabetes.csv")

# %% [markdown]
# Kept as a run: MLflow has its settings, metrics and files, and its model is registered as the champion, which
# `unfreeze predict diabetes NEW.csv` and `load_model` use. `unfreeze up` shows the pages.

# %%
tracked = model.set_params(tracked=True).fit()
tracked.run_id_

# %%
load_model("diabetes").predict(patient)
