"""The `unfreeze` command."""

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Group, Parameter

from unfreeze.flows import running
from unfreeze.flows.commands import demo, flags, models, service, training
from unfreeze.models.errors import UserError, printable
from unfreeze.tasks.machine.storage import storage_trouble

app = App(
    name="unfreeze",
    help="Fine-tune pretrained networks, tracked and resumable.",
    help_format="plaintext",
    version=lambda: f"unfreeze {version('unfreeze')}",
    version_flags=["--version"],
    default_parameter=Parameter(negative=(), show_default=False),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
"""Heavy libraries are imported by the commands that need them, to keep ``--help`` fast."""
COMMANDS: dict[str, tuple[Callable[..., int], ...]] = {
    "Start": (demo.demo, service.doctor),
    "Look and plan": (training.look, training.plan, training.summary, training.find_lr, training.add_datepart),
    "Train": (training.train, training.train_table, training.resume, training.sweep, models.retrain),
    "Use a model": (models.predict, models.explain, models.export, models.promote),
    "Runs": (service.runs, models.report, models.compare, models.replay, service.sync),
    "Service": (service.up, service.open, service.status, service.clean),
}
for group, commands in COMMANDS.items():
    panel = Group.create_ordered(group)
    for command in commands:
        app.command(command, group=panel)
app.register_install_completion_command()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 failed, 2 wrong input, 130 stopped."""
    if arguments is None:
        atexit.register(_end_quietly)
    try:
        command, bound = flags.parse(app, sys.argv[1:] if arguments is None else arguments)
        status = int(command(*bound.args, **bound.kwargs) or 0)
    except CycloptsError as error:
        print(" ".join(("unfreeze", *(error.command_chain or ()))), printable(str(error)), sep=": ", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"unfreeze: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unfreeze: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        trouble = storage_trouble(error)
        if trouble is None:
            raise
        print(f"unfreeze: {trouble}", file=sys.stderr)
        status = 1
    if running.prefect_is_gone:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # Prefect's threads would keep trying for minutes to deliver their last lines
    return status


def _end_quietly() -> None:
    """Drop what libraries print after Python's end: triton, which torch imports, lists its functions as leaked."""
    if "triton" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    sys.exit(main())
