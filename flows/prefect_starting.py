"""A Prefect server of this process's own, for flows that are started where no service runs."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unfreeze.models.addresses import masked
from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.processes import share_processors
from unfreeze.tasks.machine.storage import storage_trouble
from unfreeze.tasks.service.prefect_server import knows_a_server, start_embedded
from unfreeze.tasks.service.supervise import responds

SECONDS_TO_ANSWER = 10.0
"""A server that `unfreeze up` has to start again takes longer, but one that is busy does not."""


@contextmanager
def prefect_starting() -> Iterator[None]:
    """Quiet the libraries, and let Prefect's embedded server start while the block imports torch: each takes seconds.

    The block ends when the server answers: a flow that met it half started would not wait for it.
    """
    make_home()
    share_processors()
    # In a terminal the bars say it all; elsewhere the steps' own lines do.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING" if sys.stderr.isatty() else "INFO")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    for noisy in ("alembic", "mlflow", "httpx", "timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Prefect would write to stderr, between our lines, of each line that it cannot send.
    logging.raiseExceptions = False
    # They tell of every attempt, the second with a traceback; we tell of an outage.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if knows_a_server():
        _require_answer()
        yield
        return
    wait_for_server = start_embedded()
    yield
    try:
        wait_for_server()
    except UserError as error:  # its log knows of a traceback, and the disk of its cause
        raise UserError(storage_trouble(error) or str(error)) from error


def _require_answer() -> None:
    """Raise `UserError` if there is no Prefect server at the address in the environment."""
    api, end = os.environ.get("PREFECT_API_URL"), time.monotonic() + SECONDS_TO_ANSWER
    while api and not responds(f"{api.rstrip('/')}/health"):
        if time.monotonic() > end:
            raise UserError(
                f"Prefect at {masked(api)} does not answer; start its server, or correct PREFECT_API_URL, or unset it: "
                "a command then starts a server of its own. A run needs Prefect to begin"
            )
        time.sleep(1)
