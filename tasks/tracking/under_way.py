"""The runs that this process has under way: whatever is logged to one goes by way of its spool."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.tracking import delivery as waits
from unfreeze.tasks.tracking.delivery import Delivery
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.server import client, get_run
from unfreeze.tasks.tracking.spool import CHILD, Entry, folder_of, lock_of


class Part:
    """A run that is part of one under way, such as a sweep's trial: what it logs goes by way of that one's spool.

    Parameters
    ----------
    whole
        The delivery of the run under way.
    key
        Of the part, see `unfreeze.tasks.tracking.children`.
    tags
        That it begins with.
    """

    def __init__(self, whole: Delivery, key: str, tags: Mapping[str, str]) -> None:
        self.run_id, self.spool, self.info, self.results = key, whole.spool, whole.info, whole.results
        self.tags, self.known = dict(tags), dict[str, tuple[int, float]]()
        self.wait, self._whole = whole.wait, whole

    def add(self, entries: Sequence[Entry]) -> None:
        """As `Delivery.add`."""
        for kind, body in entries:
            if kind == "tags":
                self.tags |= body["tags"]
        self._whole.add([(kind, {**body, CHILD: self.run_id}) for kind, body in entries])

    def kept(self, artifact: str) -> Path:
        """As `Delivery.kept`."""
        return self._whole.kept(f"{self.run_id}/{artifact}")


_OPEN: dict[str, Delivery | Part] = {}
_later: list[Callable[[], None]] | None = None
"""What the end of a block of `staying_open` calls."""


def delivery_of(run_id: str) -> Delivery | Part | None:
    """The delivery of a run, or part of one, that this process has under way; None for any other run."""
    return _OPEN.get(run_id)


def tags_of(run_id: str) -> dict[str, str]:
    """Tags of a run, those included that wait for MLflow."""
    delivery = delivery_of(run_id)
    return dict(delivery.tags if delivery is not None else get_run(run_id).data.tags)


@contextmanager
def delivering(run_id: str) -> Iterator[Delivery]:
    """Let everything that is logged to the run while the block runs reach MLflow by way of its spool.

    At the block's end what waits is given some time; the rest stays in the spool, and a line says so.
    """
    with _delivered_by(Delivery(run_id, client().get_run(run_id)), waits.PATIENCE) as delivery:
        yield delivery


@contextmanager
def delivering_together(run_id: str, is_first: bool) -> Iterator[Delivery]:
    """As `delivering`, by a spool of this process's own: for a run that several processes have at a time.

    Those that join do not ask MLflow for anything, and leave what waits to whoever is the first.
    """
    run = client().get_run(run_id) if is_first else None
    delivery = Delivery(run_id, run, is_shared=True)
    with (
        lock_of(delivery.spool.folder.name),
        _delivered_by(delivery, waits.PATIENCE if is_first else waits.PATIENCE_WHEN_STOPPED),
    ):
        yield delivery


@contextmanager
def delivering_part(run_id: str, key: str, tags: Mapping[str, str]) -> Iterator[None]:
    """Let what is logged under a key while the block runs go by way of the run's spool."""
    whole = _OPEN[run_id]
    assert isinstance(whole, Delivery)
    _OPEN[key] = Part(whole, key, tags)
    try:
        yield
    finally:
        del _OPEN[key]


@contextmanager
def staying_open() -> Iterator[None]:
    """Let runs whose blocks end within this one stay open until its end: a retraining logs to what it has trained."""
    global _later  # noqa: PLW0603
    _later = []
    try:
        yield
    finally:
        later, _later = _later, None
        with ExitStack() as closing:
            for close in reversed(later):
                closing.callback(close)


def at_the_end(close: Callable[[], None]) -> None:
    """Call it now, or at the end of the block of `staying_open` under way."""
    if _later is None:
        close()
    else:
        _later.append(close)


@contextmanager
def _delivered_by(delivery: Delivery, patience: float) -> Iterator[Delivery]:
    _OPEN[delivery.run_id] = delivery
    try:
        yield delivery
    except BaseException as stopped:
        if not isinstance(stopped, Exception):
            patience = waits.PATIENCE_WHEN_STOPPED
        with suppress(UserError):  # what stopped it comes first
            at_the_end(partial(_finish, delivery, patience))
        raise
    at_the_end(partial(_finish, delivery, patience))


def _finish(delivery: Delivery, patience: float) -> None:
    try:
        with suppress(KeyboardInterrupt):  # whoever is in a hurry need not wait: nothing is lost
            delivery.wait(patience)
        if count := delivery.spool.waiting():
            why = f" ({delivery.trouble})" if delivery.trouble else ""
            log_notice(
                f"MLflow lacks {count} operations of run {delivery.run_id}{why}; they wait in "
                f"{delivery.spool.folder}, and `unfreeze sync` delivers them"
            )
    finally:
        del _OPEN[delivery.run_id]
        delivery.close()
    if delivery.unwritten:
        raise UserError(
            f"{delivery.unwritten} operations of run {delivery.run_id} could be kept neither in MLflow nor in "
            f"{delivery.spool.folder}, whose disk is full; free some space there, and "
            f"`unfreeze resume {delivery.run_id}`"
        )


def keep(run_id: str, *entries: Entry) -> None:
    """Do something to a run: by way of its spool where it is under way here, else at once."""
    delivery = _OPEN.get(run_id)
    if delivery is not None:
        delivery.add(entries)
        return
    for kind, body in entries:
        perform(run_id, kind, body)


def keep_and_wait(run_id: str, entry: Entry) -> dict[str, str]:
    """As `keep`, for what makes something in MLflow; returns what it made, nothing if MLflow does not have it yet."""
    delivery = _OPEN.get(run_id)
    if delivery is None:
        return perform(run_id, *entry)
    delivery.add([entry])
    delivery.wait(waits.PATIENCE)
    return delivery.results.get(entry[0], {})


def wait_until_delivered(run_id: str) -> bool:
    """Wait for MLflow to have all that was logged to a run; False if it takes nothing for too long."""
    delivery = _OPEN.get(run_id)
    return not folder_of(run_id).exists() if delivery is None else delivery.wait(waits.PATIENCE)


@contextmanager
def place_of(run_id: str, name: str) -> Iterator[Path]:
    """Where to write a file or folder of that name before an entry of `keep` names it as ``path`` within the block."""
    delivery = _OPEN.get(run_id)
    if delivery is not None:
        yield delivery.spool.place(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / name
