"""What a command says at its end: tables and ways to continue, for a person, on stderr."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Column, Table


def folded(first: str, *names: str, title: str | None = None) -> Table:
    """A table that cuts nothing where a terminal is narrow: the first column stays whole, the others fold."""
    columns = (Column(name, overflow="fold") for name in names)
    return Table(Column(first, no_wrap=True), *columns, title=title, title_justify="left")


def training(result: dict[str, Any]) -> None:
    """A training's stages, metrics and model."""
    console = Console(stderr=True)
    names = sorted({name for stage in result["stages"] for name in stage["metrics"]})
    table = folded("stage", "lr", "epochs", "seconds", "train loss", *(f"valid {name}" for name in names))
    for stage in result["stages"]:
        loss = "" if stage["train_loss"] is None else f"{stage['train_loss']:.4f}"
        values = [f"{stage['metrics'].get(name, float('nan')):.4f}" for name in names]
        table.add_row(
            stage["name"], f"{stage['lr']:.2g}", str(stage["epochs"]), f"{stage['seconds']:.1f}", loss, *values
        )
    console.print(table)
    metrics = folded("metric", "value")
    for name, value in result["metrics"].items():
        metrics.add_row(name, f"{value:.4f}")
    console.print(metrics)
    model = result["model"]
    print(f"{model['name']} version {model['version']} ({model['alias']}): {result['model_uri']}", file=sys.stderr)
    pages(result)


def retraining(result: dict[str, Any]) -> None:
    """What was decided about a challenger, and by which numbers."""
    console = Console(stderr=True)
    comparison = result.get("comparison")
    if comparison is not None:
        shown = folded(comparison["metric"], "value", title=f"On {comparison['rows']:,} rows that neither trained on")
        shown.add_row(f"champion (version {result['champion_before']})", f"{comparison['champion']:.4f}")
        shown.add_row(f"challenger (version {result['challenger']})", f"{comparison['challenger']:.4f}")
        console.print(shown)
    line = str(result["decision"])
    line += f": champion is version {result['champion']}" if "champion" in result else f": {result['why']}"
    console.print(line, highlight=False)
    for reason in result.get("reasons", []):
        console.print(f"  {reason}", highlight=False)


def lrs(result: dict[str, Any]) -> None:
    """What the learning-rate finder suggests."""
    table = folded("method", "learning rate", title=f"Stage {result['stage']}")
    for method, lr in result["suggestions"].items():
        table.add_row(f"{method} (used)" if method == result["method"] else method, f"{lr:.2g}")
    Console(stderr=True).print(table)
    print(f"The curve: {result['curve']}", file=sys.stderr)
    pages(result)


def predictions(result: dict[str, Any]) -> None:
    """What a prediction came to."""
    if result["table"]:
        table = folded(*result["table"][0])
        for row in result["table"]:
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
        Console(stderr=True).print(table)
    speed = f", {result['rows_per_second']:,.0f} rows a second" if result["rows_per_second"] else ""
    print(
        f"{result['out']}: {result['rows']:,} rows by {result['model']} version {result['version']}, "
        f"{result['unreadable']:,} unreadable; {result['seconds']:.1f} s{speed}",
        file=sys.stderr,
    )


def pages(result: dict[str, Any]) -> None:
    """Where to look at a run."""
    from unfreeze.tasks.prefect_run.report import pages as pages_of

    for name, way in pages_of(result["run_id"]).items():
        print(f"{name}: {way}", file=sys.stderr)


def sweep(result: dict[str, Any]) -> None:
    """The search against the rule of thumb, and how to use what was found."""
    comparison(result["comparison"])
    trials = ", ".join(f"{count} {name}" for name, count in result["trials"].items())
    print(f"trials: {trials}; shared prefixes built: {result['prefix_builds']}", file=sys.stderr)
    for each in result["workers"]["died"]:
        print(f"worker {each['worker']} died with status {each['exit_status']}: {each['log']}", file=sys.stderr)
    if result["best"] is not None:
        best(result["best"])
        print(f"register it: unfreeze sweep --study {result['study']} --best --register", file=sys.stderr)
    pages(result)


def comparison(rows: list[dict[str, Any]]) -> None:
    """A table with a column for each of the settings that are compared."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row if name != "what"))
    table = folded("", *(str(row["what"]) for row in rows))
    for name in names:
        values = [row.get(name) for row in rows]
        table.add_row(name, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    Console(stderr=True).print(table)


def best(result: dict[str, Any]) -> None:
    """A study's best trial."""
    params = ", ".join(f"{name} {value}" for name, value in result["params"].items())
    print(f"best: trial {result['number']} with {result['value']:.5g} ({params})", file=sys.stderr)


def registered(result: dict[str, Any]) -> None:
    """A study's best trial and the model made of it."""
    best(result)
    model = result["model"]
    print(f"{model['name']} version {model['version']} ({model['alias']}): {model['model_uri']}", file=sys.stderr)
    pages(result)
