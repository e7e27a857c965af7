"""unfreeze's Tables with its defaults."""

import pandas as pd

from unfreeze import Tables

model = Tables("train.csv", target="target").fit()
test = pd.read_csv("test.csv")
if model.spec.data.task == "regression":
    answers = pd.DataFrame({"target": model.predict(test)})
else:
    answers = pd.DataFrame(model.predict_proba(test), columns=model.classes_)
answers.to_csv("answers.csv", index=False)
