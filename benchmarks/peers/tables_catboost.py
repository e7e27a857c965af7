"""CatBoost's estimators with their defaults."""

import catboost
import pandas as pd

train, test = pd.read_csv("train.csv"), pd.read_csv("test.csv")
targets = train.pop("target")
texts = list(train.select_dtypes(exclude=["number", "bool"]))
train[texts], test[texts] = train[texts].fillna("missing"), test[texts].fillna("missing")
if pd.api.types.is_numeric_dtype(targets):
    model = catboost.CatBoostRegressor(cat_features=texts, verbose=False).fit(train, targets)
    answers = pd.DataFrame({"target": model.predict(test)})
else:
    model = catboost.CatBoostClassifier(cat_features=texts, verbose=False).fit(train, targets)
    answers = pd.DataFrame(model.predict_proba(test), columns=model.classes_)
answers.to_csv("answers.csv", index=False)
