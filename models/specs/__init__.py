"""Settings of every flow, each described once.

The same pydantic models are the Prefect form, the command-line flags, the settings file and the MLflow params, so a
field's description is its help text everywhere. List defaults are written out: a Prefect form shows a
``default_factory`` list as empty. What a sweep searches is in `unfreeze.models.search`.
"""

from unfreeze.models.specs.images import AugmentSpec as AugmentSpec
from unfreeze.models.specs.images import DataSpec as DataSpec
from unfreeze.models.specs.images import ModelSpec as ModelSpec
from unfreeze.models.specs.images import TrainImages as TrainImages
from unfreeze.models.specs.images import TtaSpec as TtaSpec
from unfreeze.models.specs.predict import Predict as Predict
from unfreeze.models.specs.retrain import PromotionSpec as PromotionSpec
from unfreeze.models.specs.retrain import Retrain as Retrain
from unfreeze.models.specs.retrain import Watch as Watch
from unfreeze.models.specs.service import Service as Service
from unfreeze.models.specs.tables import TableDataSpec as TableDataSpec
from unfreeze.models.specs.tables import TableModelSpec as TableModelSpec
from unfreeze.models.specs.tables import TrainTables as TrainTables
from unfreeze.models.specs.training import FinderSpec as FinderSpec
from unfreeze.models.specs.training import OptimizerSpec as OptimizerSpec
from unfreeze.models.specs.training import Spec as Spec
from unfreeze.models.specs.training import Stage as Stage
from unfreeze.models.specs.training import TrackingSpec as TrackingSpec
from unfreeze.models.specs.training import Training as Training
