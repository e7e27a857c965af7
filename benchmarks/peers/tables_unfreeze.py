"""unfreeze's Tables with its defaults."""

import pandas as pd

from unfreeze import Tables

model = Tables("train.csv", target="target").fit()
test = pd.read_csv("test.csv")
if hasattr(model, "classes_"):
    answers = pd.DataFrame(model.predict_proba(test), columns=model.classes_)
else:
    answers = pd.DataFrame({"target": model.predict(test)})
answers.to_csv("answers.csv", index=False)
