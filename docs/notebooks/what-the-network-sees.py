# %% [markdown]
# # What the network sees

# %% tags=["parameters"]
IMAGES = 600
SETTINGS = {"size": 64}

# %%
from sklearn.datasets import load_digits

from unfreeze import Images

digits = load_digits()
pixels, labels = (digits.images[:IMAGES] * 15).astype("uint8"), digits.target[:IMAGES]
model = Images(**SETTINGS).fit(pixels, labels)

# %% [markdown]
# Where a network looks (Grad-CAM: bright places speak for the class), and at the end of the page what classic kernels,
# such as Sobel's for edges, make of the first image: the first layer of a network learns kernels like these.

# %%
model.explain(pixels[:4])

# %% [markdown]
# The validation images with the highest loss.

# %%
title, draw = model.findings_["valid"].figures["valid/top_losses.png"]
draw()

# %% [markdown]
# Which classes are taken for which, on images that the training did not have.

# %%
from sklearn.metrics import confusion_matrix

others = slice(IMAGES, 2 * IMAGES)
said = model.predict((digits.images[others] * 15).astype("uint8"))
confusion_matrix(digits.target[others], said)

# %% [markdown]
# With intervals: of so few images, no figure is exact.

# %%
model.evaluate((digits.images[others] * 15).astype("uint8"), digits.target[others])
