"""Human-readable results of commands on stderr: tables and next steps."""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unfreeze.models.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


MOST_ROWS = 10
"""Of a long table that are shown."""


def console(stderr: bool = False) -> "Console":
    """A console that shows any text as it is; what is piped is not wrapped."""
    from rich.console import Console  # imported late: `--help` needs this module but no table

    shown = Console(stderr=stderr, markup=False, emoji=False)
    if not shown.is_terminal:
        shown.width = 10_000
    return shown


def table(columns: Sequence[str], rows: Iterable[Iterable[Any]], title: str | None = None, whole: int = 1) -> "Table":
    """A table that cuts nothing where a terminal is narrow: the first `whole` columns stay whole, the others fold."""
    from rich.table import Column, Table

    heads = [Column(name, no_wrap=place < whole, overflow="fold") for place, name in enumerate(columns)]
    made = Table(*heads, title=title, title_justify="left")
    for row in rows:
        texts = ("" if each is None else f"{each:.4g}" if isinstance(each, float) else str(each) for each in row)
        made.add_row(*map(printable, texts))
    return made


SECTIONS = {"baseline": "head alone, validation", "valid": "kept model, validation", "test": "kept model, test"}
"""Section of the metrics -> heading."""


def training(result: dict[str, Any]) -> None:
    """A training's stages, the metrics that were asked for, its model, and what to type next."""
    names = sorted({name for stage in result["stages"] for name in stage["metrics"]})
    keys = ("name", "lr", "epochs", "seconds", "train_loss")
    stages = [(*map(stage.get, keys), *map(stage["metrics"].get, names)) for stage in result["stages"]]
    _table(("stage", "lr", "epochs", "seconds", "train loss", *(f"valid {name}" for name in names)), stages)
    metrics = result["metrics"]
    found = {section: title for section, title in SECTIONS.items() if f"{section}/loss" in metrics}
    rows = [(name, *(_with_interval(metrics, f"{section}/{name}") for section in found)) for name in names]
    _table(("metric", *found.values()), rows)
    _lines(*result["worth_a_look"], before="worth a look: ")
    _lines(f"run {result['run_id']}; every metric, mistake and figure: unfreeze report last --out report.html")
    _model(result)


def _with_interval(metrics: Mapping[str, float], name: str) -> str:
    """A metric with its interval, if it has one: ``0.98 (0.91 to 1)``."""
    if name not in metrics:
        return ""
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"
    return f"{metrics[name]:.4g}{interval}"


def retraining(result: dict[str, Any]) -> None:
    """What was decided about a challenger, and by which numbers."""
    if comparison := result.get("comparison"):
        number = f"version {result['challenger']}" if result["challenger"] else "not registered yet"
        names = (f"champion (version {result['champion_before']})", f"challenger ({number})")
        rows = zip(names, (comparison["champion"], comparison["challenger"]), strict=True)
        _table((comparison["metric"], "value"), rows, f"On {comparison['rows']:,} rows that neither trained on")
    why = f"champion is version {result['champion']}" if "champion" in result else result["why"]
    _lines(*result.get("worth_a_look", []), before="worth a look: ")
    _lines(f"{result['decision']}: {why}", *(f"  {reason}" for reason in result.get("reasons", [])))


def comparison(result: dict[str, Any]) -> None:
    """Two trainings side by side, and the rows that changed sides."""
    from unfreeze.models.evaluation.verdict import compared  # imports scipy

    found = result["comparison"]
    rows = [("first run", found["champion"]), ("second run", found["challenger"])]
    _table((found["metric"], "value"), rows, f"On {result['rows']:,} {result['section']} rows")
    _lines(compared(found))
    if result["section"] == "valid":
        _lines("validation rows chose the model of each run, which flatters the run that tried more; test rows do not")
    for what, count in zip(("better", "worse"), result["flipped"], strict=True):
        if count:
            sides = "only the second has right" if what == "better" else "only the first has right"
            _lines(f"{count:,} rows that {sides}:", *(f"  {name}" for name in result[what][:20]))


def summary(result: dict[str, Any]) -> None:
    """A network layer by layer, as a stage trains it."""
    layers = [{**row, "parameters": f"{row['parameters']:,}" if row["parameters"] else ""} for row in result["layers"]]
    _rows(layers, f"As stage {result['stage']} trains it")
    _lines(f"{result['parameters']:,} parameters, of which {result['trainable']:,} train")


def plan(result: dict[str, Any]) -> None:
    """What a training will do, and what it will take."""
    _lines(*result["decided"])
    rows = [
        {
            "stage": stage["stage"]["name"],
            "trains": stage["stage"]["train"],
            **{name: stage["stage"][name] for name in ("cycles", "epochs")},
            "fewest to most": f"{stage['fewest_epochs']} to {stage['most_epochs']}",
            "steps": f"{stage['steps']:,}",
            "lr by layer group": ", ".join(f"{group} {lr:.2g}" for group, lr in stage["lrs"].items()),
            "times lr found": "yes" if stage["found"] else "",
            "ms a step": round(1000 * stage["step_seconds"]),
            "takes": _duration(stage["seconds"]),
        }
        for stage in result["stages"]
    ]
    _rows(rows, f"Batches of {result['batch_size']} rows")
    _lines(
        f"about {_duration(result['seconds'])} of training and evaluation, at most "
        f"{_duration(result['most_seconds'])}, and {result['memory'] / 2**30:.1f} GiB of memory, of "
        f"{result['memory_there'] / 2**30:.0f}",
        "the start of Prefect and MLflow and the report add about 20 s, in a new data folder 40 s",
    )
    if result["flags"]:
        _lines(f"to train within the budget: {result['flags']}")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def look(result: dict[str, Any]) -> None:
    """What there is in a source of images, and what is wrong with it."""
    if result["exclude"]:
        _lines(f"Train without the suspicious labels: --data.exclude {result['exclude']}")
    if result["groups"]:
        _lines(
            f"Train with near copies on one side of the split: unfreeze train {shlex.quote(result['groups'])} "
            "--data.group_column group"
        )
    page(result)


def page(result: dict[str, Any]) -> None:
    """Where a page is, and what tables and lines can show of it."""
    for title, rows in result["tables"].values():
        _rows(rows[:MOST_ROWS], title)
    _lines(*result["lines"])
    _lines(*result["notices"], before="worth a look: ")
    _lines(f"The page: {result['out']}")


def report(result: dict[str, Any]) -> None:
    """Where a run's report is."""
    _lines(*(f"The report: {result[name]}" for name in ("out", "artifact") if name in result))
    pages(result)


def lrs(result: dict[str, Any]) -> None:
    """What the learning-rate finder suggests."""
    used = {result["method"]: " (used)"}
    rows = [(f"{method}{used.get(method, '')}", f"{lr:.2g}") for method, lr in result["suggestions"].items()]
    _table(("method", "learning rate"), rows, f"Stage {result['stage']}")
    _lines(f"The curve: {result['curve']}")
    pages(result)


def predictions(result: dict[str, Any]) -> None:
    """What was predicted: each of few rows or their classes, what the model had never seen, the file and the speed."""
    from unfreeze.models.targets.predictions import unseen_note  # imports pyarrow

    few = [{name: value for name, value in row.items() if value is not None} for row in result["few"]]
    _rows(few or result["table"])
    _lines(*(f"warning: {unseen_note(name, count, result['rows'])}" for name, count in result["unseen"].items()))
    speed = f", {result['rows_per_second']:,.0f} rows a second" if result["rows_per_second"] else ""
    why = f": {result['why']}" if result["why"] else ""
    _lines(
        f"{result['out']}: {result['rows']:,} rows by {result['model']} version {result['version']}, "
        f"{result['unreadable']:,} unreadable{why}; {result['seconds']:.1f} s{speed}"
    )


def exported(result: dict[str, Any]) -> None:
    """What was written, how it was checked, and what differs from how the model predicts by itself."""
    check, about = result["check"], result["about"]
    what = "generated images (give real ones with --check)" if check["generated"] else "images"
    unreadable = f" ({check['unreadable']:,} more cannot be read)" if check["unreadable"] else ""
    _lines(
        f"checked on {check['rows']:,} {what}{unreadable}: {check['same_answers']:,} answers are the same, "
        f"probabilities differ by {check['largest_difference']:.1g} at most; {check['ms_per_image']:g} ms an image"
    )
    if about["evaluated_with_tta"]:
        _lines("the export predicts from the plain view; the model itself was evaluated with test-time augmentation")
    files = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in result["files"].items())
    _lines(f"{result['out']}: {files} and export.json, of {result['model']} {result['version']}".rstrip())


def pages(result: dict[str, Any]) -> None:
    """Where to look at a run."""
    from unfreeze.tasks.tracking.server import pages as pages_of

    _lines(*(f"{name}: {way}" for name, way in pages_of(result["run_id"], result.get("experiment_id")).items()))


def sweep(result: dict[str, Any]) -> None:
    """The search against the rule of thumb, and how to use what was found."""
    if rows := result["comparison"]:
        names = list(dict.fromkeys(name for row in rows for name in row if name != "what"))
        _table(("", *(row["what"] for row in rows)), [(name, *(row.get(name) for row in rows)) for name in names])
    _lines(*result["verdict"])
    trials = ", ".join(f"{count} {name}" for name, count in result["trials"].items())
    _lines(f"trials: {trials}; stages trained once for all trials: {result['prefix_builds']}")
    for each in result["workers"]["died"]:
        _lines(f"worker {each['worker']} died with status {each['exit_status']}: {each['log']}")
    if result["best"] is not None:
        best(result["best"])
        _lines(f"register it: unfreeze sweep --study {result['study']} --best --register")
    pages(result)


def best(result: dict[str, Any]) -> None:
    """A study's best trial."""
    params = ", ".join(f"{name} {value}" for name, value in result["params"].items())
    _lines(f"best: trial {result['number']} with {result['value']:.5g} ({params})")


def replay(result: dict[str, Any]) -> None:
    """Whether a repeated training ended with the same model, and why not."""
    if result["equal"]:
        _lines(f"run {result['replay']} ended with the same model as {result['run']}, bit by bit")
    else:
        _lines(f"run {result['replay']} ended with another model than {result['run']}")
        _lines(*(f"  {each}" for each in result["differences"] or ["no known difference"]))


def registered(result: dict[str, Any]) -> None:
    """A study's best trial and the model made of it."""
    best(result)
    _lines(*result["worth_a_look"], before="worth a look: ")
    _model(result)


def _model(result: dict[str, Any]) -> None:
    model = result["model"]
    if "version" in model:
        _lines(f"{model['name']} version {model['version']} ({model['alias']}): {model['model_uri']}", model["line"])
    else:
        _lines(f"{model['name']} waits for MLflow; `unfreeze sync` registers it")
    pages(result)


def _lines(*lines: str, before: str = "") -> None:
    for line in lines:
        print(f"{before}{printable(line)}", file=sys.stderr)


def _rows(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if columns:
        _table(columns, [[row.get(name) for name in columns] for row in rows], title)


def _table(columns: Sequence[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    console(stderr=True).print(table(columns, rows, title))
