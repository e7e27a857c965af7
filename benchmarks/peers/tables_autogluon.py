"""AutoGluon's TabularPredictor with its defaults."""

from autogluon.tabular import TabularDataset, TabularPredictor

predictor = TabularPredictor(label="target").fit(TabularDataset("train.csv"))
test = TabularDataset("test.csv")
answers = (
    predictor.predict(test).to_frame() if predictor.problem_type == "regression" else predictor.predict_proba(test)
)
answers.to_csv("answers.csv", index=False)
