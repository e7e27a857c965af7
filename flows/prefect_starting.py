"""A Prefect server of this process's own, for flows that are started where no service runs."""

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
        require_prefect()
        yield
        return
    wait_for_server = start_embedded()
    yield
    try:
        wait_for_server()
    except UserError as error:  # its log knows of a traceback, and the disk of its cause
        raise UserError(storage_trouble(error) or str(error)) from error
