"""A private Prefect server for flows that start where no service runs."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.processes import share_processors
from unfreeze.tasks.machine.servers import require_prefect
from unfreeze.tasks.machine.storage import storage_trouble
from unfreeze.tasks.service.prefect_server import knows_a_server, start_embedded


@contextmanager
def prefect_starting() -> Iterator[None]:
    """Quiet the libraries, and start Prefect's embedded server while the block imports torch (seconds each).

    The block ends once the server answers, because a flow would not wait for a half-started one.
    """
    make_home()
    share_processors()
    # Progress bars suffice in a terminal, the steps' own lines elsewhere.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING" if sys.stderr.isatty() else "INFO")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    for noisy in ("alembic", "mlflow", "httpx", "timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Prefect would report every line that it cannot send on stderr, between ours.
    logging.raiseExceptions = False
    # They log every attempt, the second with a traceback; we report outages.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if knows_a_server():
        require_prefect()
        yield
        return
    wait_for_server = start_embedded()
    yield
    try:
        wait_for_server()
    except UserError as error:  # its log has the traceback, the disk the cause
        raise UserError(storage_trouble(error) or str(error)) from error
