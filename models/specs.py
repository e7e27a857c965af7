"""Every knob of a training, once.

The same models are the Prefect form, the command-line flags, the YAML file and the MLflow params, so a field's
description is its help text everywhere. List defaults are written out: a Prefect form shows a
``default_factory`` list as empty.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from unfreeze.models.names import check_experiment_name, check_registry_name

Augmentation = Literal["side_on", "top_down", "basic", "none"]
"""Which random views make sense for the subject: ``basic`` rotates, zooms, shifts and changes the light; ``side_on``
adds left-right flips (animals, products); ``top_down`` all eight flips and quarter turns (satellite, microscope)."""


MOST_EPOCHS = 10_000
"""Of one stage; more is a slip of the cycle settings, which multiply."""


class Spec(BaseModel):
    """A frozen group of settings; an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(Spec):
    """Which images, how they are split, and how large they are trained."""

    source: str = Field(
        default="digits",
        min_length=1,
        description="`digits`, a folder with a folder per class, a folder with train/ and valid/ (or validation/, "
        "val/, dev/; in any case), a CSV or feather file with a column of paths and one of labels, or the name of a "
        "torchvision data set (`oxford-iiit-pet`, `imagenette`, ...).",
    )
    size: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="Side of the square training image in pixels. Empty: the size the weights were trained at, but "
        "at most eight times the images' own median side.",
    )
    fit: Literal["crop", "squish", "pad"] = Field(
        default="crop",
        description="How an image becomes square: `crop` the centre, `squish` the whole, or `pad` with black.",
    )
    valid_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Share of every class that validates (0 to 1, exclusive); unused where the source has a split.",
    )
    split_seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the split; kept apart from `seed`, so runs with other seeds share validation rows.",
    )
    split_like: str | None = Field(
        default=None,
        description="Id of an earlier MLflow run: its images stay on the side that they were on, and only new ones "
        "are split. Unused where the source has a split.",
    )
    path_column: str = Field(default="path", description="Column of image paths in a CSV or feather source.")
    label_column: str = Field(default="label", description="Column of labels in a CSV or feather source.")
    split_column: str | None = Field(
        default=None,
        description="Column of a CSV or feather source that says `train`, `valid` or `test` (unused) per row. "
        "Empty: split by `valid_fraction`.",
    )
    max_megapixels: float = Field(
        default=100,
        gt=0,
        le=2000,
        description="Images with more million pixels than this are rejected, so that none can exhaust memory: "
        "decoding one takes at most 12 bytes per pixel of this limit, 1.2 GB at 100. WebP, AVIF and JPEG 2000 need "
        "more per pixel and are rejected from two thirds, five sixths and half of it.",
    )


class ModelSpec(Spec):
    """The pretrained body and the new head."""

    backbone: str = Field(
        default="timm/tf_efficientnet_lite0",
        min_length=1,
        description="A torchvision classifier by name (`resnet34`) or a timm one as `timm/NAME`.",
    )
    weights: str = Field(
        default="imagenet",
        min_length=1,
        description="`imagenet`, `none` (random), the path of a local .pth or .safetensors file, or the folder of a "
        "model that unfreeze trained.",
    )
    head: str = Field(default="fastai", description="`fastai` (two layers), or another one of `HEADS`.")
    head_width: int = Field(default=512, ge=8, le=8192, description="Units of the head's hidden layer.")
    dropout: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Dropout before the head's last layer; half of it before the hidden layer.",
    )


class AugmentSpec(Spec):
    """Random views of a training image, drawn per image on the training device."""

    preset: Augmentation = Field(
        default="side_on",
        description="`side_on`: flips left-right; `top_down`: all eight flips and quarter turns; `basic`: no flips; "
        "`none`: no augmentation at all.",
    )
    max_rotate: float = Field(default=10, ge=0, le=180, description="Largest rotation either way, in degrees.")
    max_zoom: float = Field(default=1.1, ge=1, le=4, description="Largest magnification; 1 is none.")
    max_shift: float = Field(default=0.05, ge=0, le=0.5, description="Largest shift, as a share of the side.")
    max_lighting: float = Field(
        default=0.05, ge=0, lt=1, description="Largest change of brightness and of contrast, as a share of the range."
    )


class TtaSpec(Spec):
    """Test-time augmentation: average the plain view's probabilities with those of random views."""

    n_aug: int = Field(default=4, ge=0, le=64, description="Augmented views per image; 0 switches TTA off.")
    beta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Weight of the plain view. Empty: 1 / (n_aug + 1), so every view counts the same.",
    )


class FinderSpec(Spec):
    """The learning-rate finder: raise the lr batch by batch and watch the loss."""

    start: float = Field(default=1e-5, gt=0, lt=1, description="First learning rate of the sweep.")
    end: float = Field(default=10, gt=0, le=100, description="Last learning rate of the sweep.")
    steps: int = Field(default=100, ge=10, le=2000, description="Batches of the sweep.")
    method: Literal["falling", "valley", "steepest", "minimum"] = Field(
        default="falling",
        description="Which suggestion is used: `falling` is the highest lr where the loss is still clearly falling, "
        "`valley` the middle of the longest descent, `steepest` the steepest point, `minimum` a tenth of the "
        "lr of the lowest loss.",
    )

    @model_validator(mode="after")
    def _end_above_start(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end ({self.end:g}) must be above start ({self.start:g})")
        return self


class Stage(Spec):
    """One stage of the recipe: what is trained, on which inputs, at which lrs, for how long."""

    name: str = Field(
        min_length=1,
        max_length=40,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="Name of the stage in charts, tables and checkpoints (letters, digits, - and _).",
    )
    train: Literal["head", "late", "all"] = Field(
        default="head",
        description="What is trained: the `head`, the head and the `late` half of the body, or `all` layers.",
    )
    precompute: bool = Field(
        default=False,
        description="Train the head from the frozen body's precomputed activations of the plain images.",
    )
    views: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Draw from this many augmented views per image, precomputed once through the frozen body. "
        "Empty (`none`): fresh augmentation in every epoch. Only where just the head is trained.",
    )
    size: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="Side of the image in this stage, in pixels (progressive resizing). Empty: `data.size`.",
    )
    find_lr: bool = Field(
        default=False, description="Run the learning-rate finder first, and use its suggestion unless `lr` is given."
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Learning rate of the head. Empty: the latest suggestion of the finder.",
    )
    lr_factor: float = Field(
        default=1.0, gt=0, le=100, description="Multiplies the lr that the finder suggests; unused with `lr`."
    )
    ratio: float = Field(
        default=10,
        ge=1,
        le=1000,
        description="Each earlier layer group learns this many times slower than the next: 10 for data like ImageNet, "
        "3 for data unlike it, 1 for equal lrs.",
    )
    early_ratio: float | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="How many times slower the earliest layer group learns than the one after it. Empty: `ratio`.",
    )
    lrs: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=20,
        description="Explicit lrs, earliest layers first, the head last; all but the last are spread evenly over the "
        "body. Used instead of `lr` and `ratio`.",
    )
    schedule: str = Field(
        default="cosine", description="`cosine` (SGDR: the lr restarts at each cycle), or another one of `SCHEDULES`."
    )
    cycles: int = Field(default=1, ge=1, le=100, description="Cycles of the schedule.")
    cycle_len: int = Field(default=1, ge=1, le=1000, description="Epochs of the first cycle.")
    cycle_mult: int = Field(default=1, ge=1, le=10, description="Each cycle is this many times longer than the last.")
    early_stop_tolerance: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Train until over-fitting: stop at the first cycle end whose validation loss is worse than the "
        "best by more than this share, and keep the best. Empty: train every cycle and keep the last.",
    )
    freeze_batchnorm: bool = Field(
        default=False,
        description="Keep batch-norm statistics and weights fixed in unfrozen layers as well: better for data like "
        "ImageNet, and for few images.",
    )

    @field_validator("views", mode="before")
    @classmethod
    def _none_is_fresh(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("lrs")
    @classmethod
    def _lrs_are_positive(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and any(not 0 < lr <= 100 for lr in value):
            raise ValueError("every lr must be above 0 and at most 100")
        return value

    @model_validator(mode="after")
    def _precomputed_inputs_need_a_frozen_body(self) -> Self:
        if self.train != "head" and (self.precompute or self.views):
            field = "precompute" if self.precompute else "views"
            raise ValueError(
                f"{field} needs a frozen body, but stage {self.name!r} trains {self.train!r}; "
                f"set train to 'head' or leave {field} empty"
            )
        if self.train == "late" and self.lrs is not None and len(self.lrs) == 2:
            raise ValueError(f"stage {self.name!r}: two lrs leave the body one group without a late half; give 3")
        if self.epochs > MOST_EPOCHS:
            raise ValueError(
                f"stage {self.name!r}: {self.cycles} cycles of {self.cycle_len} epochs, each {self.cycle_mult} times "
                f"longer than the last, are {self.epochs:,} epochs; at most {MOST_EPOCHS:,}"
            )
        if self.precompute and self.views:
            raise ValueError(f"stage {self.name!r} sets both precompute (plain images) and views (augmented): pick one")
        return self

    @property
    def precomputes(self) -> bool:
        """Whether the stage trains from precomputed activations, plain or of augmented views."""
        return self.precompute or self.views is not None

    @property
    def epochs(self) -> int:
        """Epochs of all cycles together."""
        return sum(self.cycle_len * self.cycle_mult**cycle for cycle in range(self.cycles))


class OptimizerSpec(Spec):
    """How weights are updated, and what the loss counts."""

    name: str = Field(default="adamw", description="`adamw`, `sgd` (with momentum), or another one of `OPTIMIZERS`.")
    loss: str = Field(
        default="auto",
        description="`auto` follows from the target: `cross_entropy` for classes, `squared_error` for numbers; or "
        "another one of `LOSSES`.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD, first beta of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled for AdamW; not on norms and biases.")
    batch_size: int = Field(default=64, ge=4, le=4096, description="Images in a batch.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced` weighs classes by the inverse of their training frequency."
    )


class TrackingSpec(Spec):
    """Where the run is kept and what is kept of it."""

    experiment: str = Field(default="unfreeze", min_length=1, description="MLflow experiment.")
    run_name: str | None = Field(default=None, description="Name of the run. Empty: source, backbone and seed.")
    model_name: str | None = Field(
        default=None, description="Name in the model registry. Empty: the source's name and `-classifier`."
    )
    cycle_checkpoints: bool = Field(
        default=True, description="Keep a checkpoint per cycle; the last epoch's is always kept, to resume from."
    )
    system_metrics: bool = Field(default=True, description="Log CPU, memory and GPU use while training.")
    top_losses: int = Field(default=16, ge=0, le=100, description="Images with the highest loss to show.")
    keep_examples: bool = Field(
        default=False,
        description="Keep real data with the model: the input example of the registered model and, of a table, the "
        "sample of training rows that later data are compared with. Off: the example is made up, and of each column "
        "only its distribution is kept, apart from the others.",
    )

    @field_validator("experiment")
    @classmethod
    def _experiment_can_be_created(cls, value: str) -> str:
        return check_experiment_name(value)

    @field_validator("model_name")
    @classmethod
    def _model_can_be_registered(cls, value: str | None) -> str | None:
        return None if value is None else check_registry_name(value)


class Training(Spec):
    """Everything that defines a training, whatever its data."""

    modality: str = Field(description="Kind of data.")
    data: Spec = Field(description="Which data, and how they are split.")
    model: Spec = Field(description="The network.")
    finder: FinderSpec = Field(default=FinderSpec(), description="The learning-rate finder.")
    recipe: list[Stage] = Field(min_length=1, max_length=20, description="The stages in order.")
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="Optimizer and loss.")
    snapshots: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Snapshot ensemble: average the predictions of the weights at the ends of the last N cycles of the "
        "last stage. 1: the final weights alone.",
    )
    metrics: list[str] = Field(default=[], description="Computed on all validation rows.")
    tracking: TrackingSpec = Field(default=TrackingSpec(), description="Where the run is kept.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of weights, order, dropout and augmentation.")
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="`auto` uses bf16 where the hardware is faster with it: CUDA from compute capability 8, and for "
        "the frozen body on CPUs with AMX.",
    )

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        check_recipe(self.recipe)
        check_snapshots(self.snapshots, self.recipe, self.tracking)
        return self


class TrainImages(Training):
    """Everything that defines a training of an image classifier."""

    modality: Literal["images"] = Field(default="images", description="Kind of data.")
    data: DataSpec = Field(default=DataSpec(), description="Which images, how they are split, how large they are.")
    model: ModelSpec = Field(default=ModelSpec(), description="The pretrained body and the new head.")
    augment: AugmentSpec = Field(default=AugmentSpec(), description="Random views of training images.")
    recipe: list[Stage] = Field(
        default=[
            Stage(name="head", train="head", precompute=True, find_lr=True, cycles=2),
            Stage(name="head-augmented", train="head", views=3, cycles=3, cycle_len=1),
            Stage(
                name="full",
                train="all",
                find_lr=True,
                ratio=10,
                cycles=3,
                cycle_len=1,
                cycle_mult=2,
                early_stop_tolerance=0.1,
                freeze_batchnorm=True,
            ),
        ],
        min_length=1,
        max_length=20,
        description="The stages in order. The default is the course's eight steps: find an lr and train the head from "
        "precomputed activations, train it on augmented images, unfreeze, set differential lrs, find the lr again, "
        "train all layers with growing cycles until over-fitting.",
    )
    tta: TtaSpec = Field(default=TtaSpec(), description="Test-time augmentation.")
    metrics: list[str] = Field(
        default=["accuracy"],
        description="Computed on all validation rows: `accuracy`, `balanced_accuracy`, `f1`, `f2`, `auc`, `kappa`, "
        "`log_loss`, or a function of your own as `package.module:function`.",
    )


def check_recipe(recipe: list[Stage]) -> None:
    """Refuse stages with the same name, and a stage without a learning rate.

    Raises
    ------
    ValueError
        Says which stage.
    """
    names = [stage.name for stage in recipe]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"recipe: stage names must differ, but {sorted(doubled)} occur more than once")
    suggested = False
    for position, stage in enumerate(recipe):
        suggested = suggested or stage.find_lr
        if stage.lr is None and stage.lrs is None and not suggested:
            raise ValueError(
                f"recipe.{position} ({stage.name}): no learning rate; set lr or lrs, or find_lr here or earlier"
            )


def check_snapshots(snapshots: int, recipe: list[Stage], tracking: TrackingSpec) -> None:
    """Refuse a snapshot ensemble of cycles that there are not, or that are not kept.

    Raises
    ------
    ValueError
        Says what to change.
    """
    stage = recipe[-1]
    if snapshots == 1:
        return
    if stage.cycles < snapshots:
        raise ValueError(f"snapshots: {snapshots} need as many cycles, but stage {stage.name!r} has {stage.cycles}")
    if stage.early_stop_tolerance is not None:
        raise ValueError(
            f"snapshots: stage {stage.name!r} has early_stop_tolerance, which keeps one cycle's weights; set it to none"
        )
    if not tracking.cycle_checkpoints:
        raise ValueError("snapshots: tracking.cycle_checkpoints must be true, or no cycle's weights are kept")
