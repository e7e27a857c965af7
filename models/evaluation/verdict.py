"""Summarise a training in sentences: model quality, parts that helped, and suspicions."""

import math
from collections.abc import Mapping, Sequence
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
SECTIONS = {"test": "test rows, which no choice was made by", "valid": "validation rows, which chose the model"}


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
    found = [
        *_of_losses(training),
        *_of_rows(training),
        *_of_probabilities(training),
        *(Suspicion(notice.removeprefix("warning: ")) for notice in training.notices),
        *_of_drift(training),
    ]
    return sorted(found, key=lambda each: not each.serious)


def _of_losses(training: TrainingSummary) -> list[Suspicion]:
    found = []
    for stage in training.stages:
        losses = [stage.get("train_loss"), stage.get("metrics", {}).get("loss")]
        if any(loss is not None and not math.isfinite(loss) for loss in losses):
            found.append(
                Suspicion(f"Stage {stage['name']} diverged: a loss is not finite; lower its lr.", serious=True)
            )
    trained = [stage for stage in training.stages if stage.get("train_loss")]
    if trained:
        stage = trained[-1]
        loss, fitted = stage.get("metrics", {}).get("loss", math.nan), stage["train_loss"]
        if fitted > 0 and loss / fitted > OVERFITTED:
            found.append(
                Suspicion(
                    f"Over-fitted, as it seems: stage {stage['name']} ended with a loss of {number(loss)} on the "
                    f"validation rows against {number(fitted)} on the training rows; more data, augmentation or weight "
                    "decay may help."
                )
            )
    for gain in training.gains:
        if gain.high < 0 and gain.metric == "loss":
            found.append(Suspicion(described(gain)))
    return found


def _of_rows(training: TrainingSummary) -> list[Suspicion]:
    found, metrics, rows = [], training.metrics, training.splits.get("valid", 0)
    if 0 < rows < FEWEST_ROWS:
        found.append(
            Suspicion(f"Only {rows} validation rows: one row is {1 / rows:.1%}, so small differences are chance.")
        )
    if not training.splits.get("test"):
        found.append(Suspicion("No test rows: the validation rows chose the model, which flatters its numbers."))
    accuracies = [each for each in headlines(metrics) if each.name.startswith("accuracy")]
    for each in accuracies:
        majority = metrics.get(f"{each.section}/majority")
        if majority is not None and each.low <= majority:
            text = (
                f"Not shown to be better than no model: always answering the commonest class is right in "
                f"{majority:.1%} of the {SECTION_NAMES[each.section]} rows, the model in {each.value:.1%} "
                f"({each.low:.1%} to {each.high:.1%})."
            )
            found.append(Suspicion(text, serious=True))
    found += _of_test_rows(headlines(metrics))
    if training.label_errors >= max(FEWEST_WRONG_LABELS, MOST_WRONG_LABELS * rows):
        found.append(Suspicion(_wrong_labels(training.label_errors, rows, accuracies)))
    return found


def _wrong_labels(count: int, rows: int, accuracies: Sequence[Headline]) -> str:
    """Say whether disagreements between model and labels are more likely errors of the model or of the labels."""
    doubted = f"{count} of {rows} validation rows look to the model like another class than their label's"
    wrong = max((1 - each.value for each in accuracies if each.section == "valid"), default=0.0)
    if wrong > MOST_WRONG:
        return f"{doubted}; it is wrong in {wrong:.1%} of them all, so most are its mistakes rather than the labels'."
    return f"{doubted}: their labels may be wrong; see below."


def _of_test_rows(shown: Sequence[Headline]) -> list[Suspicion]:
    """Find metrics that are worse on the test rows than on the validation rows.

    Losses of classifiers are skipped: a few confidently wrong rows dominate them, and a bootstrap of validation rows
    without any cannot reflect that.
    """
    is_class = any(each.name.startswith("accuracy") for each in shown)
    found = []
    for name in dict.fromkeys(each.name for each in shown):
        both = {each.section: each for each in shown if each.name == name}
        if len(both) < 2 or (is_class and name.removesuffix("_tta") in LOWER_IS_BETTER):
            continue
        if _worse(both["test"], both["valid"]):
            found.append(
                Suspicion(
                    f"{named(name)} is clearly worse on the test rows, {both['test'].shown}, than on the validation "
                    f"rows, {both['valid'].shown}: the 95 % intervals do not touch."
                )
            )
    return found


def _worse(one: Headline, other: Headline) -> bool:
    """Whether `one` is worse and the intervals do not touch."""
    if one.name.removesuffix("_tta") in LOWER_IS_BETTER:
        return one.low > other.high
    return one.high < other.low


def _of_probabilities(training: TrainingSummary) -> list[Suspicion]:
    section = "test" if "test/ece" in training.metrics else "valid"
    error = training.metrics.get(f"{section}/ece", 0.0)
    if error < max(UNCALIBRATED, training.metrics.get(f"{section}/ece_by_chance", 0.0)):
        return []
    off = f"Probabilities of the {SECTION_NAMES[section]} rows are off by {error:.1%} on average"
    temperature = training.metrics.get("valid/temperature", 1.0)
    after = "no temperature mends it" if temperature == 1 else f"after a temperature of {temperature:.2f}"
    return [Suspicion(f"{off}, {after}: more validation rows, or rows like those to predict, may help.")]


def _of_drift(training: TrainingSummary) -> list[Suspicion]:
    found = [_unlike("The data are unlike those that the champion was trained on", training.drift)]
    for split, rows in training.shift.items():
        found.append(_unlike(f"The {SECTION_NAMES[split]} rows are unlike the training rows", rows))
    return [each for each in found if each is not None]


def _unlike(text: str, report: Sequence[Mapping[str, Any]]) -> Suspicion | None:
    """Name the large differences in a drift report with their population stability index (PSI)."""
    rows = [row for row in report if row.get("verdict") == "large"]
    if not rows:
        return None
    named = []
    for row in rows[:MOST_NAMED]:
        psi = row.get("psi")
        size = "" if psi is None else f" (PSI {number(psi)}, large from {LARGE_PSI})"
        named.append(f"{row.get('what', row.get('column'))}{size}")
    more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
    return Suspicion(f"{text}: {', '.join(named)}{more}.")


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
