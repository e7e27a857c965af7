"""What a sweep searches: dimensions, budget and objectives, and the spec of each trial.

A dimension is a setting by its dotted name, or one of the three that say what the course has a rule of thumb for.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from unfreeze.models.addresses import WITHOUT_PASSWORD, check_no_password
from unfreeze.models.errors import UserError
from unfreeze.models.fields import fields_of, present
from unfreeze.models.overrides import SpecType, build_spec
from unfreeze.models.specs import Spec, Stage

Value = bool | int | float | str
# Not left to right: then 1 would be read as true, and "no" as false.
Choice = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str

STAGE_DIMENSIONS = {"body_ratio": "ratio", "early_ratio": "early_ratio", "head_factor": "lr_factor"}
"""Dimension -> the field that it sets in every stage that trains the body."""
RULES_OF_THUMB = {"ratio 10 (data like ImageNet)": 10.0, "ratio 3 (data unlike it)": 3.0, "equal lrs": 1.0}
"""What the course advises without a search, and the baseline without differential lrs."""
LOWER_IS_BETTER = frozenset({"loss", "seconds", "log_loss", "rmspe", "rmse", "mae"})
"""Objectives to minimise; every other one is maximised."""
GRID_POINTS = 4
"""Points of a range in a grid search."""


class Dimension(Spec):
    """One setting that the sweep varies: within a range, or among choices."""

    name: str = Field(
        min_length=1,
        description="`body_ratio` (late body against head), `early_ratio` (early body against late), `head_factor` "
        "(times the finder's suggestion), or any setting by its dotted name, such as `recipe.2.cycle_mult`.",
    )
    low: float | None = Field(default=None, description="Lowest value of a range.")
    high: float | None = Field(default=None, description="Highest value of a range.")
    log: bool = Field(default=False, description="Search the range by ratios instead of differences.")
    choices: list[Choice] | None = Field(default=None, min_length=1, description="Values to choose from; no range.")

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError(f"{self.name}: give choices, or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: give low and high, or choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic range needs low above 0, not {self.low:g}")
        return self

    def ends(self) -> list[Value]:
        """The values that must be allowed if all are to be: the choices, or both ends of the range."""
        return list(self.choices) if self.choices is not None else [float(self.low or 0), float(self.high or 0)]

    def contains(self, value: Any) -> bool:
        """Whether the sweep could try this value."""
        if self.choices is not None:
            return value in self.choices
        return isinstance(value, int | float) and float(self.low or 0) <= value <= float(self.high or 0)

    def grid(self, whole: bool) -> list[Value]:
        """The choices, or evenly spread points of the range (`whole` numbers where the setting is one)."""
        if self.choices is not None:
            return list(self.choices)
        low, high = float(self.low or 0), float(self.high or 0)
        shares = [point / (GRID_POINTS - 1) for point in range(GRID_POINTS)]
        points = [low * (high / low) ** share if self.log else low + (high - low) * share for share in shares]
        points[0], points[-1] = low, high
        return list(dict.fromkeys(round(point) for point in points)) if whole else list(points)


class SweepSpec(Spec):
    """A search for better settings: what varies, for how many trials, judged by what."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a storage that is refused may hold a password

    trials: int = Field(
        default=20, ge=1, le=100_000, description="Trials of the study in all, those of earlier calls included."
    )
    study: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$",
        max_length=100,
        description="Name of the study; the same name continues where it stopped. Empty: the name of the source.",
    )
    storage: str | None = Field(
        default=None,
        description="Database of studies, such as `postgresql://user@host/name`, for workers on several machines; its "
        "password is `UNFREEZE_STORAGE_PASSWORD` of their environment. Empty: a journal file on this machine.",
        json_schema_extra={"pattern": WITHOUT_PASSWORD},  # so that a form refuses a password before it is stored
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes on this machine that run trials.")
    space: list[Dimension] = Field(
        default=[
            Dimension(name="body_ratio", low=1, high=30, log=True),
            Dimension(name="early_ratio", low=1, high=30, log=True),
            Dimension(name="head_factor", low=0.1, high=3, log=True),
        ],
        min_length=1,
        max_length=50,
        description="What varies. The default is the differential learning rates.",
    )
    sampler: Literal["tpe", "random", "grid", "cmaes"] = Field(
        default="tpe",
        description="How values are chosen: `tpe` learns from earlier trials, so does `cmaes` (ranges only).",
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        default="median",
        description="Stops hopeless trials at the end of an epoch. With repeats the Wilcoxon test decides after each.",
    )
    objectives: list[str] = Field(
        default=["loss"],
        min_length=1,
        max_length=4,
        description="What is better: `loss` (of validation), `seconds` (of training) or one of the training's metrics; "
        "errors low, scores high. Several give a Pareto front, without pruning.",
    )
    repeats: int = Field(
        default=1, ge=1, le=50, description="Train each trial with this many seeds and judge it by the mean."
    )
    sampler_seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the sampler.")

    @field_validator("storage")
    @classmethod
    def _holds_no_password(cls, value: str | None) -> str | None:
        return None if value is None else check_no_password(value)

    @field_validator("objectives", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return value
        return [name.strip() for text in texts for name in text.split(",")]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for what, names in (("space", [dimension.name for dimension in self.space]), ("objectives", self.objectives)):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what}: {', '.join(doubled)} given twice")
        if self.sampler == "cmaes" and any(dimension.choices for dimension in self.space):
            raise ValueError("sampler: cmaes searches ranges only, but the space has choices; take tpe")
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise ValueError("sampler: cmaes knows one objective only; take tpe")
        return self


def trial_spec(training: SpecType, values: Mapping[str, Value]) -> SpecType:
    """The training of one trial: `training` with `values` by dimension.

    Raises
    ------
    UserError
        If a dimension is not a setting, or a value is not allowed.
    """
    overrides: dict[str, Value] = {}
    for name, value in values.items():
        if name in STAGE_DIMENSIONS:
            overrides |= {f"recipe.{position}.{STAGE_DIMENSIONS[name]}": value for position in _body_stages(training)}
        else:
            overrides[name] = value
    return build_spec(type(training), training.model_dump(), overrides)


def check_space(search: SweepSpec, training: BaseModel) -> None:
    """Refuse, before the first trial, dimensions that do not exist, mean nothing, or leave their bounds.

    Raises
    ------
    UserError
        One line per problem.
    """
    problems = []
    for dimension in search.space:
        try:
            _check_meaning(dimension, training)
            for value in dimension.ends():
                trial_spec(training, {dimension.name: value})
        except UserError as error:
            problems.append(f"space: {error}")
    metrics = getattr(training, "metrics", [])
    known = ["loss", "seconds", *(metric.split(":")[-1] for metric in metrics)]
    problems += [
        f"objectives: {objective!r} is not one of {', '.join(known)}; add it to metrics to have it computed"
        for objective in search.objectives
        if objective not in known
    ]
    if problems:
        raise UserError("\n".join(problems))


def _check_meaning(dimension: Dimension, training: BaseModel) -> None:
    stages: Sequence[Stage] = getattr(training, "recipe", [])
    if dimension.name not in STAGE_DIMENSIONS:
        if dimension.choices is None and not _is_number(dimension.name, training):
            raise UserError(f"{dimension.name}: a range needs a number; give choices")
        return
    positions = _body_stages(training)
    if not positions:
        raise UserError(f"{dimension.name}: no stage of the recipe trains the body; set train to all or late in one")
    for position in positions:
        stage = stages[position]
        if stage.lrs is not None or (dimension.name == "head_factor" and stage.lr is not None):
            field = "lrs" if stage.lrs is not None else "lr"
            raise UserError(f"{dimension.name}: stage {stage.name!r} sets {field}, which leaves nothing to search")


def whole_numbers(dimension: Dimension, training: BaseModel) -> bool:
    """Whether the dimension's setting is a whole number."""
    kinds = _kinds(dimension.name, training)
    return int in kinds and float not in kinds


def shared_stages(search: SweepSpec, training: BaseModel) -> int:
    """How many stages, from the first, different trials can have in common.

    A stage is shared until a range reaches it: a value from a range is never met again, a choice is. The last stage
    is each trial's own: what it trains is what the trial is about.
    """
    stages: Sequence[Stage] = getattr(training, "recipe", [])
    reached = max(0, len(stages) - 1)
    for dimension in search.space:
        if dimension.choices is None:
            if dimension.name in STAGE_DIMENSIONS:
                reached = min([reached, *_body_stages(training)])
            else:
                reached = min(reached, _first_stage(dimension.name, stages))
    return reached


def rules_of_thumb(search: SweepSpec, training: BaseModel) -> dict[str, dict[str, Value]]:
    """Trials to begin with: the course's ratios and equal lrs, everything else as the training has it."""
    names = [dimension.name for dimension in search.space]
    settings = training.model_dump()
    as_given = {dimension.name: _value_of(settings, dimension.name) for dimension in search.space}
    as_given |= {"head_factor": 1.0} if "head_factor" in names else {}
    inside = {
        dimension.name: as_given[dimension.name]
        for dimension in search.space
        if dimension.contains(as_given[dimension.name])
    }
    ratios = [name for name in ("body_ratio", "early_ratio") if name in names]
    if not ratios:
        return {"as the recipe has it": inside} if inside else {}
    named = RULES_OF_THUMB if len(ratios) == 2 else {f"{ratios[0]} {ratio:g}": ratio for ratio in (10.0, 3.0, 1.0)}
    rules = {rule: {**inside, **dict.fromkeys(ratios, ratio)} for rule, ratio in named.items()}
    by_name = {dimension.name: dimension for dimension in search.space}
    return {
        rule: values
        for rule, values in rules.items()
        if all(by_name[name].contains(value) for name, value in values.items())
    }


def _body_stages(training: BaseModel) -> list[int]:
    stages: Sequence[Stage] = getattr(training, "recipe", [])
    return [position for position, stage in enumerate(stages) if stage.train != "head"]


def _first_stage(name: str, stages: Sequence[Stage]) -> int:
    """Number of the first stage that a setting by dotted name changes; 0 unless it belongs to one stage."""
    parts = name.split(".")
    if parts[0] != "recipe" or len(parts) < 3:
        return 0
    return _position([stage.name for stage in stages], parts[1]) or 0


def _value_of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(settings, list):
            position = _position([each.get("name") if isinstance(each, dict) else None for each in settings], part)
            settings = None if position is None else settings[position]
        else:
            settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _position(names: Sequence[str | None], part: str) -> int | None:
    """Which entry of a list a part of a dotted name means: its position or its name, as in `set_field`."""
    if part.isascii() and part.isdecimal():
        return int(part) if int(part) < len(names) else None
    return names.index(part) if part in names else None


def _kinds(name: str, training: BaseModel) -> list[Any]:
    if name in STAGE_DIMENSIONS:
        return [float]
    parts = name.split(".")
    pattern = ".".join("N" if parts[0] == "recipe" and place == 1 else part for place, part in enumerate(parts))
    return [kind for field in fields_of(type(training)) if field.name == pattern for kind in present(field.annotation)]


def _is_number(name: str, training: BaseModel) -> bool:
    kinds = _kinds(name, training)
    return not kinds or any(kind in (int, float) for kind in kinds)  # unknown names have a message of their own


def parse_dimension(text: str) -> tuple[str, Dimension | None]:
    """Read ``NAME=1,2,4`` (choices), ``NAME=1..30`` or ``NAME=1..30 log`` (a range), ``NAME=none`` (not varied).

    Returns
    -------
    tuple
        The name, and the dimension; None for one that is taken out of the space.

    Raises
    ------
    UserError
        If the text is not one of these.
    """
    name, _, rest = (part.strip() for part in text.partition("="))
    if name and rest.lower() == "none":
        return name, None
    words = [word.strip() for word in rest.split(",")]
    is_range = ".." in rest and not any(sign in rest for sign in "/\\")  # "../weights.pth" is a path
    ends = re.fullmatch(r"(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+)(?P<log>\s+log)?", rest) if is_range else None
    if not name or not all(words) or (is_range and not ends):
        raise UserError(f"--space {text!r}: write NAME=1,2,4 or NAME=1..30 or NAME=1..30 log, or NAME=none")
    settings: dict[str, Any] = {"choices": [_read(word) for word in words]}
    if ends:
        settings = {**ends.groupdict(), "log": ends["log"] is not None}
    try:
        return name, build_spec(Dimension, {"name": name, **settings})
    except UserError as error:
        raise UserError(f"--space {text!r}: {error}") from error


def _read(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
            if math.isfinite(value):
                return value
        except (ValueError, OverflowError):
            continue
    return text
