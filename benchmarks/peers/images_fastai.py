"""fastai's vision_learner and fine_tune, as in its quick start."""

from pathlib import Path

import pandas as pd
from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, vision_learner

loaders = ImageDataLoaders.from_folder(
    "train", valid_pct=0.2, seed=0, item_tfms=Resize(224), batch_tfms=aug_transforms(size=224), num_workers=0
)
learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained_cfg_overlay={"file": "weights.pth"})
learner.fine_tune(4)
probabilities, _ = learner.get_preds(dl=loaders.test_dl(sorted(Path("test").glob("*/*"))))
pd.DataFrame(probabilities.numpy(), columns=list(loaders.vocab)).to_csv("answers.csv", index=False)
