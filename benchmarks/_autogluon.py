"""AutoGluon in an environment of its own: trained on one file, it answers for the rows of another.

`benchmarks._table_models` runs it as FOLDER, METRIC and seconds with the interpreter of that environment.
"""

import sys
from pathlib import Path

import pandas as pd
from autogluon.tabular import TabularPredictor

WITHOUT = ["FASTAI", "NN_TORCH"]
"""The networks, which need a torch of their own."""


def main() -> None:
    """Train, and write predictions or probabilities."""
    folder, metric, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    kind = "regression" if metric == "rmse" else None
    predictor = TabularPredictor(
        "target", path=str(folder / "model"), eval_metric=metric, problem_type=kind, verbosity=0
    )
    predictor.fit(
        train, presets="medium_quality", time_limit=seconds, num_cpus=1, num_gpus=0, excluded_model_types=WITHOUT
    )
    answers = predictor.predict(test).to_frame() if metric == "rmse" else predictor.predict_proba(test)
    answers.to_parquet(folder / "answers.parquet", index=False)


if __name__ == "__main__":
    main()
