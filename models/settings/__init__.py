"""Settings of every flow, each described once.

The same pydantic models define the Prefect form, the command-line flags, the settings file and the MLflow params, so a
field's description is its help text everywhere. List defaults are literals because a Prefect form shows a
``default_factory`` list as empty. Search spaces of sweeps are in `unfreeze.models.settings.search`.
"""

from unfreeze.models.settings.images import (
    AugmentSpec as AugmentSpec,
    DataSpec as DataSpec,
    ModelSpec as ModelSpec,
    TrainImages as TrainImages,
    TtaSpec as TtaSpec,
)
from unfreeze.models.settings.predict import Explain as Explain, Predict as Predict
from unfreeze.models.settings.retrain import (
    PromotionSpec as PromotionSpec,
    Retrain as Retrain,
    Service as Service,
    Watch as Watch,
)
from unfreeze.models.settings.tables import (
    TableDataSpec as TableDataSpec,
    TableModelSpec as TableModelSpec,
    TrainTables as TrainTables,
)
from unfreeze.models.settings.training import (
    FinderSpec as FinderSpec,
    OptimizerSpec as OptimizerSpec,
    Spec as Spec,
    Stage as Stage,
    TrackingSpec as TrackingSpec,
    Training as Training,
)
