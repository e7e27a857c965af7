"""A short training form: the five most common settings, with the defaults of `train_images` for all others."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from unfreeze.flows.train_images import train
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.tasks.machine.flow_runs import HOOKS
from unfreeze.tasks.steps.plan import within_budget

DEFAULTS = TrainImages()


@flow(name="train", flow_run_name="train {source}", **HOOKS)
def train_short(
    source: str = DEFAULTS.data.source,
    backbone: str = DEFAULTS.model.backbone,
    size: Annotated[int, Field(ge=16, le=1024)] | None = None,
    hours: Annotated[float, Field(gt=0)] | None = None,
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0,
) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register an image classifier by the recipe; the form with every setting is `train-images`.

    Args:
        source: A folder with a folder per class, a CSV file of paths and labels, or `digits`.
        backbone: The pretrained network: a classifier of timm by name (`resnet34`, `timm/convnext_tiny`).
        size: Side of the images in pixels. Empty: the size that the weights were trained at.
        hours: The longest that the training may take; stages are shortened to fit. Empty: as long as it helps.
        seed: Of weights, order and augmentation.
    """
    params = build_spec(
        TrainImages, {}, {"data.source": source, "model.backbone": backbone, "data.size": size, "seed": seed}
    )
    return train(within_budget(params, hours) if hours is not None else params)
