"""Summarise a training in sentences: model quality, parts that helped, and suspicions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from unfreeze.models.evaluation.drift import LARGE_PSI
from unfreeze.models.evaluation.results import Gain
from unfreeze.models.settings.search import LOWER_IS_BETTER

FEWEST_ROWS = 100
"""Number of validation rows below which one row is more than a percent."""
UNCALIBRATED = 0.05
"""Calibration error that is worth fixing."""
OVERFITTED = 2.0
"""Ratio of validation to training loss that suggests over-fitting."""
MOST_WRONG_LABELS = 0.03
"""Tolerated share of validation rows with suspected label errors."""
FEWEST_WRONG_LABELS = 5
MOST_WRONG = 0.2
"""Error rate above which a model's doubts say little about labels."""
MOST_NAMED = 5
SECTION_NAMES = {"test": "test", "valid": "validation", "baseline": "baseline"}
SECTIONS = {"test": "test rows, unused in training and selection", "valid": "validation rows, which chose the model"}


class Suspicion(NamedTuple):
    """Finding to check; `serious` if the result cannot be trusted until then."""

    text: str
    serious: bool = False


@dataclass(frozen=True)
class TrainingSummary:
    """Facts for a verdict.

    Attributes
    ----------
    metrics
        ``SECTION/NAME`` -> value, with ``_low`` and ``_high`` for intervals.
    splits
        Number of rows in ``train``, ``valid`` and ``test``.
    stages
        Results of the stages in order, see `unfreeze.models.recipe.run.Train.result`.
    gains
        Improvements by its parts.
    kept
        Name of the kept model; empty if unknown.
    refitted
        Sentence on its refit after selection; empty if not refitted.
    notices
        Notices about the data.
    label_errors
        Number of validation rows with suspected label errors.
    drift
        Rows of a drift report against the champion's data: ``what`` or ``column``, ``psi`` and ``verdict``.
    shift
        Split -> rows of a drift report against the training rows.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    gains: Sequence[Gain] = ()
    kept: str = ""
    refitted: str = ""
    notices: Sequence[str] = ()
    label_errors: int = 0
    drift: Sequence[Mapping[str, Any]] = ()
    shift: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


class Headline(NamedTuple):
    """Metric of the kept model with its 95 % interval."""

    name: str
    section: str
    value: float
    low: float
    high: float

    @property
    def shown(self) -> str:
        """Formatted as ``0.900 (0.850 to 0.940)``."""
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"


def headlines(metrics: Mapping[str, float]) -> list[Headline]:
    """List the metrics with an interval, test rows first and losses last."""
    found = []
    for key, value in metrics.items():
        section, _, name = key.partition("/")
        ends = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        if section in SECTIONS and ends[0] is not None and ends[1] is not None:
            found.append(Headline(name, section, value, ends[0], ends[1]))
    sections = list(SECTIONS)
    return sorted(found, key=lambda each: (sections.index(each.section), each.name.startswith("loss")))


def verdict(training: TrainingSummary) -> list[str]:
    """Summarise a training in sentences: the kept model, its quality, and the parts that helped."""
    lines = []
    shown = headlines(training.metrics)
    for section in dict.fromkeys(each.section for each in shown):
        of_section = [each for each in shown if each.section == section][:2]
        values = " and ".join(f"{named(each.name)} {each.shown}" for each in of_section)
        of_model = f" of {training.kept}" if training.kept else ""
        lines.append(f"{values}{of_model} on {training.splits.get(section, 0):,} {SECTIONS[section]}; 95 % intervals.")
    if training.kept:
        lines.append(f"The model that is kept, of those compared on the validation rows: {training.kept}.")
    if training.refitted:
        lines.append(f"{training.refitted[:1].upper()}{training.refitted[1:]}.")
    lines += [described(gain) for gain in training.gains if gain.metric == "loss"]
    lines += [
        f"Stage {stage['name']} was {stage['stopped']}."
        for stage in training.stages
        if str(stage.get("stopped", "")).startswith("skipped")
    ]
    return lines


def described(gain: Gain) -> str:
    """Describe a gain in a sentence, claiming no more than its interval allows."""
    what, rows = f"{gain.what[:1].upper()}{gain.what[1:]}", f"{SECTION_NAMES[gain.split]} rows"
    change = f"{named(gain.metric)} {number(gain.before)} to {number(gain.after)} on the {rows}"
    interval = f"95 % interval of the improvement {signed(gain.low)} to {signed(gain.high)}"
    if gain.low > 0:
        return f"{what} helped: {change}; {interval}."
    if gain.high < 0:
        return f"{what} made it worse: {change}; {interval}."
    if gain.before == gain.after:
        return f"{what} changed nothing on the {rows}."
    return f"{what} made no difference that {gain.rows:,} rows could show: {change}; {interval}."


def compared(found: Mapping[str, Any]) -> str:
    """Describe a `Comparison` in a sentence, claiming no more than its interval allows."""
    word = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else ""
    said = f"the second is {word}" if word else f"no difference that {found['rows']:,} rows could show"
    return (
        f"{said}: {named(found['metric'])} {signed(found['improvement'])}, 95 % interval of the improvement "
        f"{signed(found['low'])} to {signed(found['high'])}; that the second is no better: p = {found['p_value']:.3f} "
        f"({found['test']})"
    )


def suspicions(training: TrainingSummary) -> list[Suspicion]:
    """List the findings to check, serious ones first."""
    return sorted((found for rule in RULES for found in rule(training)), key=lambda each: not each.serious)


def _diverged(training: TrainingSummary) -> Iterator[Suspicion]:
    for stage in training.stages:
        losses = [stage.get("train_loss"), stage.get("metrics", {}).get("loss")]
        if any(loss is not None and not math.isfinite(loss) for loss in losses):
            yield Suspicion(f"Stage {stage['name']} diverged: a loss is not finite; lower its lr.", serious=True)


def _over_fitted(training: TrainingSummary) -> Iterator[Suspicion]:
    for stage in [each for each in training.stages if each.get("train_loss")][-1:]:
        loss, fitted = stage.get("metrics", {}).get("loss", math.nan), stage["train_loss"]
        if fitted > 0 and loss / fitted > OVERFITTED:
            yield Suspicion(
                f"Over-fitted, as it seems: stage {stage['name']} ended with a loss of {number(loss)} on the "
                f"validation rows against {number(fitted)} on the training rows; more data, augmentation or weight "
                "decay may help."
            )


def _harmful(training: TrainingSummary) -> Iterator[Suspicion]:
    return (Suspicion(described(gain)) for gain in training.gains if gain.high < 0 and gain.metric == "loss")


def _few_rows(training: TrainingSummary) -> Iterator[Suspicion]:
    rows = training.splits.get("valid", 0)
    if 0 < rows < FEWEST_ROWS:
        yield Suspicion(f"Only {rows} validation rows: one row is {1 / rows:.1%}, so small differences are chance.")
    if not training.splits.get("test"):
        yield Suspicion("No test rows: the validation rows chose the model, which flatters its numbers.")


def _no_better_than_the_majority(training: TrainingSummary) -> Iterator[Suspicion]:
    for each in _accuracies(training):
        majority = training.metrics.get(f"{each.section}/majority")
        if majority is not None and each.low <= majority:
            yield Suspicion(
                f"Not shown to be better than no model: always answering the commonest class is right in "
                f"{majority:.1%} of the {SECTION_NAMES[each.section]} rows, the model in {each.value:.1%} "
                f"({each.low:.1%} to {each.high:.1%}).",
                serious=True,
            )


def _worse_on_test_rows(training: TrainingSummary) -> Iterator[Suspicion]:
    """Find metrics that are worse on the test rows than on the validation rows.

    Losses of classifiers are skipped: a few confidently wrong rows dominate them, and a bootstrap of validation rows
    without any cannot reflect that.
    """
    shown = {(each.section, each.name): each for each in headlines(training.metrics)}
    for (section, name), test in shown.items():
        valid, is_loss = shown.get(("valid", name)), name.removesuffix("_tta") in LOWER_IS_BETTER
        if section != "test" or valid is None or (is_loss and _accuracies(training)):
            continue
        if test.low > valid.high if is_loss else test.high < valid.low:
            yield Suspicion(
                f"{named(name)} is clearly worse on the test rows, {test.shown}, than on the validation rows, "
                f"{valid.shown}: the 95 % intervals do not touch."
            )


def _wrong_labels(training: TrainingSummary) -> Iterator[Suspicion]:
    """Say whether disagreements between model and labels are more likely errors of the model or of the labels."""
    count, rows = training.label_errors, training.splits.get("valid", 0)
    if count < max(FEWEST_WRONG_LABELS, MOST_WRONG_LABELS * rows):
        return
    wrong = max((1 - each.value for each in _accuracies(training) if each.section == "valid"), default=0.0)
    doubted = f"{count} of {rows} validation rows look to the model like another class than their label's"
    mistakes = f"; it is wrong in {wrong:.1%} of them all, so most are its mistakes rather than the labels'."
    yield Suspicion(doubted + (mistakes if wrong > MOST_WRONG else ": their labels may be wrong; see below."))


def _uncalibrated(training: TrainingSummary) -> Iterator[Suspicion]:
    section = "test" if "test/ece" in training.metrics else "valid"
    error = training.metrics.get(f"{section}/ece", 0.0)
    if error >= max(UNCALIBRATED, training.metrics.get(f"{section}/ece_by_chance", 0.0)):
        temperature = training.metrics.get("valid/temperature", 1.0)
        after = "no temperature mends it" if temperature == 1 else f"after a temperature of {temperature:.2f}"
        yield Suspicion(
            f"Probabilities of the {SECTION_NAMES[section]} rows are off by {error:.1%} on average, {after}: more "
            "validation rows, or rows like those to predict, may help."
        )


def _noticed(training: TrainingSummary) -> Iterator[Suspicion]:
    return (Suspicion(notice.removeprefix("warning: ")) for notice in training.notices)


def _drifted(training: TrainingSummary) -> Iterator[Suspicion]:
    """Name the large differences in drift reports with their population stability index (PSI)."""
    reports = {"The data are unlike those that the champion was trained on": training.drift}
    for split, rows in training.shift.items():
        reports[f"The {SECTION_NAMES[split]} rows are unlike the training rows"] = rows
    for text, report in reports.items():
        large = [row for row in report if row.get("verdict") == "large"]
        if large:
            names = [
                f"{row.get('what', row.get('column'))}"
                + (
                    ""
                    if row.get("psi") is None
                    else f" (population stability index {number(row['psi'])}, large from {LARGE_PSI})"
                )
                for row in large[:MOST_NAMED]
            ]
            more = f" and {len(large) - MOST_NAMED} more" if len(large) > MOST_NAMED else ""
            yield Suspicion(f"{text}: {', '.join(names)}{more}.")


def _accuracies(training: TrainingSummary) -> list[Headline]:
    return [each for each in headlines(training.metrics) if each.name.startswith("accuracy")]


RULES: tuple[Callable[[TrainingSummary], Iterator[Suspicion]], ...] = (
    _diverged,
    _over_fitted,
    _harmful,
    _few_rows,
    _no_better_than_the_majority,
    _worse_on_test_rows,
    _wrong_labels,
    _uncalibrated,
    _noticed,
    _drifted,
)


def named(metric: str) -> str:
    """Format a metric's name for a sentence: ``accuracy with TTA``."""
    plain = metric.removesuffix("_tta")
    return plain.replace("_", " ") + (" with TTA" if plain != metric else "")


def number(value: float) -> str:
    """Format with three significant digits; three decimals between 0.1 and 1."""
    if not math.isfinite(value):
        return "undefined"
    if 0.1 <= abs(value) <= 1:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def signed(value: float) -> str:
    """Format as `number` does, with a sign."""
    return f"{'+' if value >= 0 else '-'}{number(abs(value))}" if math.isfinite(value) else "undefined"
