"""Settings of a training, independent of its data."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from unfreeze.models.settings.names import ExperimentName, RegistryName

MOST_EPOCHS = 10_000
"""Most epochs of a stage; more is a slip in the cycle settings, which multiply."""


Device = Annotated[
    str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
]
"""Device of a network."""


class Spec(BaseModel):
    """A frozen group of settings; an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FinderSpec(Spec):
    """The learning-rate finder: raise the lr batch by batch and watch the loss."""

    steps: int = Field(
        default=120,
        ge=10,
        le=2000,
        description="Batches of all three sweeps together; fewer where the body is trained: a tenth of the stage.",
    )
    method: Literal["stable", "falling", "valley", "steepest", "minimum"] = Field(
        default="stable",
        description="Which suggestion to use: `falling` is the highest lr where the loss is still clearly falling, "
        "`valley` the middle of the longest descent, `steepest` the steepest point, `minimum` a tenth of the lr of the "
        "lowest loss; `stable` averages these in log(lr) with the optimizer's usual lr, which weighs more the less "
        "they agree, and is then refined by `trials`.",
    )
    trials: bool = Field(
        default=True,
        description="If inputs are precomputed, refine the suggestion: five lrs around it train the stage on nine "
        "tenths of the training rows, three times each, and are scored on the held-out tenth.",
    )


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
    regression: bool = Field(
        default=False,
        description="Fit the head, a `linear` one, by logistic regression on the precomputed activations of the plain "
        "images and of `views`, instead of by gradient steps: it needs no lr, and its penalty is chosen by "
        "cross-validation on the training rows.",
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
        default=1.0, gt=0, le=100, description="Multiplies the lr, whether it is given or suggested by the finder."
    )
    ratio: float = Field(
        default=3.0,
        ge=1,
        le=1000,
        description="Each earlier layer group (early body, late body, head) learns this many times slower than the "
        "next; 1 for equal lrs. The course advises 10 for images like those of the pretraining; measured, 3 is better "
        "for both kinds.",
    )
    early_ratio: float | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="How many times slower the earliest layer group learns than the one after it. Empty: `ratio`.",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Every block of the body is a layer group of its own, with this share of the next block's lr "
        "(0.65 to 0.9 are usual for transformers). Used instead of `ratio`; empty: three layer groups.",
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
    cycle_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Minimum number of optimizer steps in the first cycle: with few rows, `cycle_len` is raised to "
        "reach it. Empty: `cycle_len` epochs, however few steps that is.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Stop the stage after this many cycles in a row without a new lowest validation loss (the loss at "
        "its beginning counts), and keep the best weights. After the last of `cycles`, further cycles follow while "
        "each lowers the loss by 0.5 %. Empty: train all cycles and keep the last weights.",
    )
    fewest_errors: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Skip the stage if fewer validation rows than this are misclassified before it: a gain could not "
        "be told from chance (McNemar's test needs five). Empty: never skip.",
    )
    freeze_batchnorm: bool = Field(
        default=False,
        description="Keep batch-norm statistics and weights fixed in unfrozen layers as well: short stages of small "
        "batches need it, because statistics of a few hundred images are noisy.",
    )

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
        if self.lrs is not None and self.layer_decay is not None:
            raise ValueError(f"stage {self.name!r} sets both lrs and layer_decay: pick one")
        if self.train == "late" and self.lrs is not None and len(self.lrs) == 2:
            raise ValueError(f"stage {self.name!r}: two lrs leave the body one group without a late half; give 3")
        if self.epochs > MOST_EPOCHS:
            raise ValueError(
                f"stage {self.name!r}: {self.cycles} cycles of {self.cycle_len} epochs, each {self.cycle_mult} times "
                f"longer than the last, are {self.epochs:,} epochs; at most {MOST_EPOCHS:,}"
            )
        if self.regression and not self.precompute:
            raise ValueError(f"stage {self.name!r} fits a regression, which needs precompute")
        if self.precompute and self.views and not self.regression:
            raise ValueError(f"stage {self.name!r} sets both precompute (plain images) and views (augmented): pick one")
        return self

    @property
    def precomputes(self) -> bool:
        """Whether the stage trains from precomputed activations, plain or of augmented views."""
        return self.precompute or self.views is not None

    @property
    def epochs(self) -> int:
        """Total epochs of all cycles; 0 for a regression."""
        return 0 if self.regression else sum(self.cycle_len * self.cycle_mult**cycle for cycle in range(self.cycles))


class OptimizerSpec(Spec):
    """How weights are updated, and what the loss counts."""

    name: str = Field(default="adamw", description="`adamw`, `sgd` (with momentum), or another one of `OPTIMIZERS`.")
    loss: str = Field(
        default="auto",
        description="`auto` follows from the target: `cross_entropy` for classes, `binary_cross_entropy` for several "
        "labels per image, `squared_error` for numbers; or "
        "`focal`; or a function of your own as `my.py:loss`, which gets torch tensors, outputs (B, C) and targets "
        "(classes (B,), or numbers or labels (B, C)), and returns their mean loss as a scalar tensor.",
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled for AdamW; not on norms and biases.")
    batch_size: int | None = Field(
        default=None,
        ge=4,
        le=4096,
        description="Rows in a batch. Empty: the power of two next to a 20th of the training rows, 8 to 64 images or "
        "32 to 256 rows of a table.",
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Clip the gradient to this norm. Empty: do not clip.",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Process a batch in this many parts and add up their gradients: the memory of a smaller batch, the "
        "steps of the whole one. Batch norms that are trained see the parts.",
    )
    ema: float | None = Field(
        default=None,
        ge=0.5,
        lt=1,
        description="Validate and keep an exponential moving average of the weights with this decay per step (0.99); "
        "it is shorter at a stage's beginning. Empty: the weights themselves.",
    )
    label_smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of the target spread over all classes. Empty: 0.05 for images of one class each, else none.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="`balanced`: every class has the same weight, however many training rows it has, in every fitted "
        "model and in every loss used for early stopping, model selection and reports; not for several labels.",
    )


class TrackingSpec(Spec):
    """Where the run is kept and what is kept of it."""

    experiment: ExperimentName = Field(default="unfreeze", min_length=1, description="MLflow experiment.")
    run_name: str | None = Field(default=None, description="Name of the run. Empty: source, time, backbone and seed.")
    model_name: RegistryName | None = Field(
        default=None, description="Name in the model registry. Empty: the source's name and `-classifier`."
    )
    cycle_checkpoints: bool = Field(
        default=False,
        description="Keep a checkpoint per cycle for good. Off: the two latest, until the training has ended.",
    )
    system_metrics: bool = Field(default=True, description="Log CPU, memory and GPU use while training.")
    top_losses: int = Field(default=16, ge=0, le=100, description="Images or rows with the highest loss to show.")
    keep_examples: bool = Field(
        default=False,
        description="Store real data with the model: the input example of the registered model and, for a table, the "
        "sample of training rows that later data are compared with. Off: the example is synthetic, and of each column "
        "only its own distribution is stored.",
    )


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
    keep: Literal["best", "trained"] = Field(
        default="best",
        description="Which model to keep: the `best` on the validation rows of the trained network and simpler models "
        "(images: the head alone, the mean of its weights and the final ones, logistic regression on the activations; "
        "tables: trees, and the average of trees and network), or the network as `trained`.",
    )
    select: str = Field(
        default="loss",
        description="Criterion for the model to keep: the validation `loss` (for classes the log loss), or a metric: "
        "`accuracy`, `balanced_accuracy`, `f1`, `auc`, ...; for several labels `map` or `auc`; for numbers `rmse`, "
        "`mae`, `rmspe` or `r2`.",
    )
    metrics: list[str] = Field(default=[], description="Computed on all validation rows.")
    tracking: TrackingSpec = Field(default=TrackingSpec(), description="Where the run is kept.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of weights, order, dropout and augmentation.")
    device: Device = "auto"
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="`auto` uses bf16 where the hardware is faster with it: CUDA from compute capability 8, and for "
        "the frozen body on CPUs with AMX.",
    )

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        check_recipe(self.recipe)
        check_snapshots(self.snapshots, self.recipe)
        if self.snapshots > 1 and self.optimizer.ema is not None:
            raise ValueError("snapshots: optimizer.ema averages the weights already; set one of the two to none")
        return self


def check_recipe(recipe: list[Stage]) -> None:
    """Reject duplicate stage names, and stages without a learning rate.

    Raises
    ------
    ValueError
        Names the stage.
    """
    names = [stage.name for stage in recipe]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"recipe: stage names must differ, but {sorted(doubled)} occur more than once")
    suggested = False
    for position, stage in enumerate(recipe):
        suggested = suggested or stage.find_lr
        if stage.lr is None and stage.lrs is None and not suggested and not stage.regression:
            raise ValueError(
                f"recipe.{position} ({stage.name}): no learning rate; set lr or lrs, or find_lr here or earlier"
            )


def check_snapshots(snapshots: int, recipe: list[Stage]) -> None:
    """Reject a snapshot ensemble that the last stage does not support.

    Raises
    ------
    ValueError
        Names the setting to change.
    """
    stage = recipe[-1]
    if snapshots == 1:
        return
    if stage.cycles < snapshots:
        raise ValueError(f"snapshots: {snapshots} need as many cycles, but stage {stage.name!r} has {stage.cycles}")
    if stage.patience is not None:
        raise ValueError(
            f"snapshots: stage {stage.name!r} has patience, which keeps one cycle's weights; set it to none"
        )
