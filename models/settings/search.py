"""Search space of a sweep: dimensions, budget and objectives, and the spec of each trial.

A dimension is a setting by its dotted name, or one of three for which the fast.ai course has a rule of thumb.
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from unfreeze.models.errors import UserError
from unfreeze.models.settings import Spec, Stage
from unfreeze.models.settings.addresses import WITHOUT_PASSWORD, check_no_password
from unfreeze.models.settings.fields import field_named
from unfreeze.models.settings.overrides import SpecType, build_spec, get_field, position_of

Value = bool | int | float | str

STAGE_DIMENSIONS = {"body_ratio": "ratio", "early_ratio": "early_ratio", "head_factor": "lr_factor"}
"""Dimension -> field set in every stage that trains the body."""
RULES_OF_THUMB = {"ratio 10 (data like ImageNet)": 10.0, "ratio 3 (data unlike it)": 3.0, "equal lrs": 1.0}
"""The course's ratios, and the baseline without differential lrs."""
LOWER_IS_BETTER = frozenset({"loss", "seconds", "log_loss", "rmspe", "rmse", "mae"})
"""Objectives to minimise; all others are maximised."""
GRID_POINTS = 4
"""Points of a range in a grid search."""


class Dimension(Spec):
    """One setting that the sweep varies: within a range, or among choices."""

    name: str = Field(
        min_length=1,
        description="`body_ratio` (how many times slower the body's late layers learn than the head: `ratio` of the "
        "stages), `early_ratio` (the same of its early layers against the late ones), `head_factor` (multiplies the "
        "head's lr: `lr_factor`), or any setting by its dotted name, such as `recipe.2.cycle_mult`.",
    )
    low: float | None = Field(default=None, description="Lowest value of a range.")
    high: float | None = Field(default=None, description="Highest value of a range.")
    log: bool = Field(default=False, description="Search the range by ratios instead of differences.")
    choices: list[Value] | None = Field(default=None, min_length=1, description="Values to choose from; no range.")

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError(f"{self.name}: give choices, or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"{self.name}: low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic range needs low above 0, not {self.low:g}")
        return self

    def ends(self) -> list[Any]:
        """The choices, or both ends of the range; if these are valid, so is every value the sweep tries."""
        return list(self.choices or (self.low, self.high))

    def contains(self, value: Any) -> bool:
        """Whether the sweep could try this value."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.ends()
        return isinstance(value, int | float) and low <= value <= high

    def grid(self, whole: bool) -> list[Any]:
        """The choices, or evenly spaced points of the range (`whole` numbers if the setting is one)."""
        if self.choices is not None:
            return list(self.choices)
        import numpy as np  # imported late: `--help` does not need it

        low, high = self.ends()
        points = np.geomspace(low, high, GRID_POINTS) if self.log else np.linspace(low, high, GRID_POINTS)
        return list(dict.fromkeys(round(point) for point in points)) if whole else points.tolist()


Space = Annotated[list[Dimension], Field(min_length=1, max_length=50)]
"""The search space."""


class SweepSpec(Spec):
    """A search for better settings: what varies, for how many trials, judged by what."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a rejected storage may hold a password

    trials: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Total number of trials of the study, including those of earlier calls.",
    )
    study: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$",
        max_length=100,
        description="Name of the study; the same name continues where it stopped. Empty: the name of the source.",
    )
    storage: Annotated[str, AfterValidator(check_no_password)] | None = Field(
        default=None,
        description="Database of studies, such as `postgresql://user@host/name`, for workers on several machines; its "
        "password is `UNFREEZE_STORAGE_PASSWORD` of their environment. Empty: a journal file on this machine.",
        json_schema_extra={"pattern": WITHOUT_PASSWORD},  # lets a form reject a password before it is stored
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that run trials, this one included.")
    cluster: str | None = Field(
        default=None,
        min_length=1,
        description="Address of a Ray cluster, such as `auto`: the workers beside this process run on its nodes, with "
        "a GPU each if there are any; they share the data folder. Empty: `RAY_ADDRESS`, or this machine.",
    )
    space: Space = Field(
        default=[
            Dimension(name="body_ratio", low=1, high=30, log=True),
            Dimension(name="early_ratio", low=1, high=30, log=True),
            Dimension(name="head_factor", low=0.1, high=3, log=True),
        ],
        description="What varies: by default the lrs of layer groups.",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        default="tpe", description="How values are chosen: `tpe` learns from earlier trials."
    )
    pruner: Literal["median", "none"] = Field(
        default="median",
        description="Stop unpromising trials at the end of an epoch. With repeats, a Wilcoxon test decides after each "
        "repeat.",
    )
    objectives: list[str] = Field(
        default=["loss"],
        min_length=1,
        max_length=4,
        description="Objectives: `loss` (validation), `seconds` (training) or one of the training's metrics; errors "
        "are minimised, scores maximised. Several give a Pareto front, without pruning.",
    )
    repeats: int = Field(
        default=1, ge=1, le=50, description="Train each trial with this many seeds and judge it by the mean."
    )
    sampler_seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the sampler.")

    @field_validator("objectives", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for what, names in (("space", [dimension.name for dimension in self.space]), ("objectives", self.objectives)):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what}: {', '.join(doubled)} given twice")
        return self


class TableSweep(SweepSpec):
    """A search for better settings of a training on a table, whose network has no pretrained layers."""

    space: Space = Field(
        default=[
            Dimension(name="recipe.0.lr", low=0.001, high=0.02, log=True),
            Dimension(name="model.width", choices=[64, 128, 256, 512]),
            Dimension(name="model.dropout", low=0, high=0.4),
            Dimension(name="optimizer.batch_size", choices=[64, 128, 256, 512]),
            Dimension(name="boosting.lr", low=0.02, high=0.2, log=True),
            Dimension(name="boosting.leaves", low=4, high=128, log=True),
            Dimension(name="boosting.leaf_rows", low=2, high=50, log=True),
            Dimension(name="boosting.columns", low=0.3, high=1),
        ],
        description="What varies: by default lr, width, dropout and batch size of the network; and lr, leaves, rows of "
        "a leaf and columns of the trees if they are fitted.",
    )


SearchType = TypeVar("SearchType", bound=SweepSpec)

SWEEPS: dict[str, type[SweepSpec]] = {"images": SweepSpec, "tables": TableSweep}
"""Modality -> the spec of its sweeps."""


def with_effect(search: SearchType, training: BaseModel) -> SearchType:
    """Drop tree settings from the search if the training fits no trees."""
    if getattr(training, "trees", True):
        return search
    space = [dimension for dimension in search.space if not dimension.name.startswith("boosting.")]
    if not space:
        raise UserError("space: only settings of trees vary, and trees is false, so nothing would change")
    return search.model_copy(update={"space": space})


def trial_spec(training: SpecType, values: Mapping[str, Value]) -> SpecType:
    """Spec of one trial: `training` with `values` by dimension; `UserError` if one is invalid."""
    overrides: dict[str, Value] = {}
    for name, value in values.items():
        field = STAGE_DIMENSIONS.get(name)
        overrides |= {f"recipe.{at}.{field}": value for at in _stages_of(name, training)} if field else {name: value}
    return build_spec(type(training), training.model_dump(), overrides)


def check_space(search: SweepSpec, training: BaseModel) -> None:
    """Reject, before the first trial, dimensions and objectives that are unknown, meaningless or out of bounds.

    The `UserError` has one line per problem.
    """
    problems = []
    for dimension in search.space:
        try:
            _check_meaning(dimension, training)
            for value in dimension.ends():
                trial_spec(training, {dimension.name: value})
        except UserError as error:
            problems.append(f"space: {error}")
    known = ["loss", "seconds", *(metric.split(":")[-1] for metric in getattr(training, "metrics", []))]
    problems += [
        f"objectives: {objective!r} is not one of {', '.join(known)}; add it to metrics to have it computed"
        for objective in search.objectives
        if objective not in known
    ]
    if problems:
        raise UserError("\n".join(problems))


def whole_numbers(dimension: Dimension, training: BaseModel) -> bool:
    """Whether the dimension's setting is a whole number."""
    field = field_named(type(training), dimension.name)
    return field is not None and int in field.kinds and float not in field.kinds


def shared_stages(search: SweepSpec, training: BaseModel) -> int:
    """Number of leading stages that different trials can share.

    Stages are shared up to the first with a range, since values from a range never recur, while choices do. The last
    stage is never shared, as its result is the trial's.
    """
    ranges = [dimension.name for dimension in search.space if dimension.choices is None]
    return min([max(0, len(_recipe(training)) - 1), *(at for name in ranges for at in _stages_of(name, training))])


def rules_of_thumb(search: SweepSpec, training: BaseModel) -> dict[str, dict[str, Value]]:
    """Initial trials: the course's ratios and equal lrs; other settings keep the training's value."""
    settings = training.model_dump()
    inside = {
        dimension.name: value
        for dimension in search.space
        if dimension.contains(value := 1.0 if dimension.name == "head_factor" else get_field(settings, dimension.name))
    }
    ratios = [dimension for dimension in search.space if dimension.name in ("body_ratio", "early_ratio")]
    if not ratios:
        return {"as the recipe has it": inside} if inside else {}
    return {
        rule if len(ratios) == 2 else f"{ratios[0].name} {ratio:g}": {**inside, **{each.name: ratio for each in ratios}}
        for rule, ratio in RULES_OF_THUMB.items()
        if all(dimension.contains(ratio) for dimension in ratios)
    }


def parse_dimension(text: str) -> tuple[str, Dimension | None]:
    """Read ``NAME=1,2,4`` (choices), ``NAME=1..30`` or ``NAME=1..30 log`` (a range), ``NAME=none`` (not varied).

    Returns the name, and the dimension or None; `UserError` for any other text.
    """
    name, _, rest = (part.strip() for part in text.partition("="))
    if name and rest.lower() == "none":
        return name, None
    words = [word.strip() for word in rest.split(",")]
    is_range = ".." in rest and not any(sign in rest for sign in "/\\")  # "../weights.pth" is a path
    ends = re.fullmatch(r"(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+)(?P<log>\s+log)?", rest) if is_range else None
    if not name or not all(words) or (is_range and not ends):
        raise UserError(f"--space {text!r}: write NAME=1,2,4 or NAME=1..30 or NAME=1..30 log, or NAME=none")
    values = {**ends.groupdict(), "log": bool(ends["log"])} if ends else {"choices": [value_of(word) for word in words]}
    try:
        return name, build_spec(Dimension, {"name": name, **values})
    except UserError as error:
        raise UserError(f"--space {text!r}: {error}") from error


def value_of(text: str) -> Value:
    """Value of an unquoted text: true, false, a number, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(value := kind(text)):
                return value
    return text


def _recipe(training: BaseModel) -> Sequence[Stage]:
    return getattr(training, "recipe", [])


def _stages_of(name: str, training: BaseModel) -> list[int]:
    """Positions of the stages affected by a dimension; the first for a setting outside the recipe."""
    if name in STAGE_DIMENSIONS:
        return [at for at, stage in enumerate(_recipe(training)) if stage.train != "head"]
    parts = name.split(".")
    if parts[0] != "recipe" or len(parts) < 3:
        return [0]
    return [position_of(training.model_dump()["recipe"], parts[1]) or 0]


def _check_meaning(dimension: Dimension, training: BaseModel) -> None:
    if dimension.name not in STAGE_DIMENSIONS:
        field = field_named(type(training), dimension.name)  # the trial's spec rejects unknown names
        if dimension.choices is None and field and not {int, float} & set(field.kinds):
            raise UserError(f"{dimension.name}: a range needs a number; give choices")
        return
    positions = _stages_of(dimension.name, training)
    if not positions:
        raise UserError(f"{dimension.name}: no stage of the recipe trains the body; set train to all or late in one")
    for stage in (_recipe(training)[at] for at in positions):
        if stage.lrs is not None:
            raise UserError(f"{dimension.name}: stage {stage.name!r} sets lrs, which leaves nothing to search")
