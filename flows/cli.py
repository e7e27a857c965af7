"""The `unfreeze` command."""

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flows.flags import FlagParser, add_flags, spec_from
from models.errors import UserError
from models.specs import TrainImages


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 failed, 2 wrong input, 130 stopped.

    Heavy libraries are imported by the command that needs them, so that ``--help`` answers at once.
    """
    parser = FlagParser(prog="unfreeze", description="Fine-tune pretrained networks, tracked and resumable.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="fine-tune an image classifier and register it")
    _add_source(train)
    train.set_defaults(run=_train)

    resume = commands.add_parser("resume", help="go on with a training that was stopped")
    resume.add_argument("run_id", metavar="RUN_ID", help="id of the MLflow run")
    resume.set_defaults(run=_resume)

    finder = commands.add_parser("find-lr", help="plot loss against learning rate and suggest one")
    _add_source(finder)
    finder.add_argument("--stage", help="stage of the recipe (default: the first)")
    finder.set_defaults(run=_find_lr)

    for command in (train, resume, finder):
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")

    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except UserError as error:
        print(f"unfreeze: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unfreeze: stopped", file=sys.stderr)
        return 130
    return status


def _add_source(parser: FlagParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="`digits`, a folder of class folders, a CSV or feather file, or a torchvision data set (default: digits)",
    )
    add_flags(parser, TrainImages)


def _params(options: argparse.Namespace) -> TrainImages:
    fixed = {"data.source": options.source} if options.source is not None else {}
    return spec_from(options, TrainImages, **fixed)


def _train(options: argparse.Namespace) -> int:
    params = _params(options)
    with _prefect_starting():
        from flows.train_images import train_images

    return _finish(train_images(params, return_state=True), options.json, _print_training)


def _resume(options: argparse.Namespace) -> int:
    with _prefect_starting():
        from flows.train_images import train_images
        from tasks.tracking import spec_of

    params = TrainImages(**spec_of(options.run_id))
    return _finish(train_images(params, options.run_id, return_state=True), options.json, _print_training)


def _find_lr(options: argparse.Namespace) -> int:
    params = _params(options)
    with _prefect_starting():
        from flows.find_lr import find_lr

    return _finish(find_lr(params, options.stage, return_state=True), options.json, _print_rates)


@contextlib.contextmanager
def _prefect_starting() -> Iterator[None]:
    """Quiet the libraries, and let Prefect's embedded API start while the block imports torch: each takes seconds.

    The block ends when the API answers: a flow that met it half started would not wait for it.
    """
    # In a terminal the bars say it all; elsewhere the steps' own lines do.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING" if sys.stderr.isatty() else "INFO")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    for noisy in ("alembic", "mlflow", "httpx", "timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # The client's own imports come first: beside torch's they would hold the server's start back for seconds.
    import prefect.server.api.server  # noqa: F401
    from prefect.client.orchestration import get_client

    def reach_prefect() -> None:
        # A failure is reported by the flow itself, which tries again.
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.hello()

    reaching = threading.Thread(target=reach_prefect, daemon=True)
    reaching.start()
    yield
    reaching.join()


def _finish(state: Any, as_json: bool, show: Callable[[dict[str, Any]], None]) -> int:
    """Show a flow's result, or say why there is none."""
    if state.is_cancelled():
        print(f"unfreeze: {state.message}", file=sys.stderr)
        return 130
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError):
        raise result
    if isinstance(result, BaseException):
        print(f"unfreeze: failed: {type(result).__name__}: {result}", file=sys.stderr)
        return 1
    show(result)
    if as_json:
        print(json.dumps(result), flush=True)
    return 0


def _print_training(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    names = sorted({name for stage in result["stages"] for name in stage["metrics"]})
    table = Table("stage", "rate", "epochs", "seconds", "train loss", *(f"valid {name}" for name in names))
    for stage in result["stages"]:
        loss = "" if stage["train_loss"] is None else f"{stage['train_loss']:.4f}"
        values = [f"{stage['metrics'].get(name, float('nan')):.4f}" for name in names]
        table.add_row(
            stage["name"], f"{stage['lr']:.2g}", str(stage["epochs"]), f"{stage['seconds']:.1f}", loss, *values
        )
    console.print(table)
    metrics = Table("metric", "value")
    for name, value in result["metrics"].items():
        metrics.add_row(name, f"{value:.4f}")
    console.print(metrics)
    model = result["model"]
    print(f"{model['name']} version {model['version']} ({model['alias']}): {result['model_uri']}", file=sys.stderr)
    _print_pages(result)


def _print_rates(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "learning rate", title=f"Stage {result['stage']}")
    for method, rate in result["suggestions"].items():
        table.add_row(f"{method} (used)" if method == result["method"] else method, f"{rate:.2g}")
    Console(stderr=True).print(table)
    print(f"The curve: {result['curve']}", file=sys.stderr)
    _print_pages(result)


def _print_pages(result: dict[str, Any]) -> None:
    from tasks.report import pages

    for name, way in pages(result["run_id"]).items():
        print(f"{name}: {way}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
