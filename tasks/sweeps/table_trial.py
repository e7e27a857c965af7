"""How a sweep tries settings of a training on a table, and what it does with the best."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from unfreeze.models.table_specs import TableDataSpec, TrainTables
from unfreeze.tasks.steps.describe_table import describe_table
from unfreeze.tasks.steps.evaluate_table import evaluate_table
from unfreeze.tasks.steps.prepare_table import list_tables, prepare_table, read_table
from unfreeze.tasks.steps.register_table import register_table
from unfreeze.tasks.steps.stage import bind_table
from unfreeze.tasks.sweeps.stage_chain import StageChain
from unfreeze.tasks.tracking.training_run import model_name


class TableTrial(StageChain):
    """One set of settings of a training on a table; see `StageChain`."""

    def __init__(self, training: TrainTables, params: TrainTables, shared: int) -> None:
        files = prepare_table(_tables(params.data), params.data)
        content = Path(files["encoded"]).stem
        settings = params.model_dump(include={"model", "optimizer", "seed"})
        recipe = bind_table(params, files)
        super().__init__(training, params, shared, recipe, [content] * len(params.recipe), settings)


def describe_tables(training: TrainTables, run_id: str) -> None:
    """Log the table and the network of a sweep to its run."""
    describe_table(training, prepare_table(_tables(training.data), training.data), run_id)


def register_tables(params: TrainTables, run_id: str) -> dict[str, Any]:
    """Evaluate the weights of a trial's run and register them; the metrics and the model."""
    tables = _tables(params.data)
    files = prepare_table(tables, params.data)
    last = len(params.recipe) - 1
    metrics = evaluate_table(params, files, run_id, last)
    model = register_table(params, tables, files, run_id, last, model_name(params), metrics)
    return {"metrics": metrics, "model": model}


def _tables(data: TableDataSpec) -> dict[str, str]:
    return dict(_read(data.model_dump_json()))


@lru_cache(maxsize=64)
def _read(data: str) -> tuple[tuple[str, str], ...]:
    """The tables, hashed and read once in a worker: a sweep is about one state of the data."""
    listed = list_tables(TableDataSpec.model_validate_json(data))
    return tuple((path, read_table(path, content)) for path, content in listed.items())
