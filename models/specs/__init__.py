"""Settings of every flow, each described once.

The same pydantic models are the Prefect form, the command-line flags, the settings file and the MLflow params, so a
field's description is its help text everywhere. List defaults are written out: a Prefect form shows a
``default_factory`` list as empty. What a sweep searches is in `unfreeze.models.search`.
"""

from unfreeze.models.specs.explain import Explain as Explain
from unfreeze.models.specs.images import (
    AugmentSpec as AugmentSpec,
    DataSpec as DataSpec,
    ModelSpec as ModelSpec,
    TrainImages as TrainImages,
    TtaSpec as TtaSpec,
)
from unfreeze.models.specs.predict import Predict as Predict
from unfreeze.models.specs.retrain import PromotionSpec as PromotionSpec, Retrain as Retrain, Watch as Watch
from unfreeze.models.specs.service import Service as Service
from unfreeze.models.specs.tables import (
    TableDataSpec as TableDataSpec,
    TableModelSpec as TableModelSpec,
    TrainTables as TrainTables,
)
from unfreeze.models.specs.training import (
    FinderSpec as FinderSpec,
    OptimizerSpec as OptimizerSpec,
    Spec as Spec,
    Stage as Stage,
    TrackingSpec as TrackingSpec,
    Training as Training,
)
