"""Where Optuna keeps studies: this machine's journal, or a database; trouble with it is told with its address."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from unfreeze.models.errors import UserError
from unfreeze.models.settings.addresses import masked
from unfreeze.tasks.machine.environment import home

PASSWORD = "UNFREEZE_STORAGE_PASSWORD"
"""Environment variable with the password of the database of studies; addresses are public and hold none."""
HEARTBEAT_SECONDS = 20
"""How often a worker reports to a database; one that is silent for three times as long has its trial retried."""
SECONDS_TO_UNLOCK = 60
"""How long a SQLite file is waited for that another process has locked."""
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""For addresses that name none: those of our extras, which are not every SQLAlchemy's default."""


@contextmanager
def reachable(address: str | None, retry: Callable[[Study, FrozenTrial], None]) -> Iterator[BaseStorage]:
    """The storage at `address` (None: this machine's journal); trouble with it is a `UserError`, see `named_trouble`.

    A database gets heartbeats, and a trial whose worker fell silent is passed to `retry`.
    """
    if address is None:
        home().mkdir(parents=True, exist_ok=True)
        yield JournalStorage(JournalFileBackend(str(home() / "optuna.journal")))
        return
    url = _read_address(address)
    waiting = {"connect_args": {"timeout": SECONDS_TO_UNLOCK}} if url.drivername.startswith("sqlite") else {}
    with named_trouble(address):
        yield RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=waiting,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=3 * HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=retry,
        )


@contextmanager
def named_trouble(address: str | None) -> Iterator[None]:
    """Within the block, trouble with the storage at `address` is a `UserError` that says where and what."""
    try:
        yield
    except ImportError as error:
        if address is None:
            raise
        raise UserError(
            f"storage {masked(address)}: {error.__cause__ or error}; install the database's driver, such as: "
            "pip install 'unfreeze[postgresql]'"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        shown = masked(address) if address is not None else str(home() / "optuna.journal")
        raise UserError(f"storage {shown}: {reason}") from error


def _read_address(address: str) -> URL:
    try:
        url = make_url(address)
        if url.password is not None and "@" in f"{url.host}{url.database}":
            raise ValueError("the password has an @ of its own")
    except (SQLAlchemyError, ValueError):  # whose messages may have parts of the password
        raise UserError(
            f"storage {masked(address)}: no address of a database; write "
            "postgresql://user:password@host:port/name, in a password %40 for @ and %2F for /"
        ) from None
    if url.password is None and PASSWORD in os.environ:
        url = url.set(password=os.environ[PASSWORD])
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
