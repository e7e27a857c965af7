"""What can be refused before a training begins: names that only the libraries know."""

from unfreeze.models.images.backbones import check_backbone
from unfreeze.models.search import SweepSpec, trial_spec
from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.metrics import check_table_metrics
from unfreeze.models.training.metrics import pick_metrics


def check_training(params: TrainImages | TrainTables) -> None:
    """Refuse a backbone that does not exist and metrics that cannot be imported, before anything is read or written.

    Raises
    ------
    UserError
        Says which, and what there is instead.
    """
    if isinstance(params, TrainImages):
        check_backbone(params.model.backbone)
        pick_metrics(params.metrics)
    else:
        check_table_metrics(params.data.task, params.metrics)


def check_trials(search: SweepSpec, training: TrainImages | TrainTables) -> None:
    """Refuse what `check_training` refuses, in the training of a sweep and in every choice of its space.

    Raises
    ------
    UserError
        As `check_training` does.
    """
    check_training(training)
    for dimension in search.space:
        if dimension.name == "model.backbone":
            for choice in dimension.choices or []:
                check_training(trial_spec(training, {dimension.name: choice}))
