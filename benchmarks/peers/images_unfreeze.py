"""unfreeze's Images with its defaults."""

from pathlib import Path

import pandas as pd

from unfreeze import Images

model = Images("train").fit()
answers = model.predict_proba(sorted(Path("test").glob("*/*")))
pd.DataFrame(answers, columns=model.classes_).to_csv("answers.csv", index=False)
