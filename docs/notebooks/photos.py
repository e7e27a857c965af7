# %% [markdown]
# # Photos in ten lines
# Any folder with a folder of images per class will do. Here are handwritten digits, written as such a folder.

# %% tags=["parameters"]
IMAGES = 600
SETTINGS = {"size": 64}

# %%
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for number in range(IMAGES):
    folder = Path("handwriting", str(digits.target[number]))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((digits.images[number] * 15).astype("uint8")).save(folder / f"{number}.png")

# %% [markdown]
# The whole recipe: a fifth of the images validate, logistic regression fits the new head, all layers are trained, and
# the best model is kept.

# %%
from unfreeze import Images, load_model

photos = Images("handwriting", test_fraction=0.2, **SETTINGS).fit()
photos

# %% [markdown]
# A path, a folder, a list, an array: all of these can be predicted.

# %%
new = digits.images[:5] * 15
photos.predict(new.astype("uint8"))

# %%
photos.predict_frame("handwriting/7", coverage=0.9).head()

# %% [markdown]
# The report says how good the model is, shows the worst errors, and labels that are probably wrong.

# %%
photos.report()

# %% [markdown]
# A model is a folder.

# %%
photos.save("handwriting-model")
load_model("handwriting-model").score("handwriting")
