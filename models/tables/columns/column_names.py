"""Hints about a column from its name."""

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_WHO = (
    "user|customer|client|member|person|patient|subject|participant|household|student|employee|device|camera|"
    "kunde|kunden|subj|pat"
)
_WHAT = "u|case|firm|order|product|item|store|shop|transaction|session|account|record|row|sample|event|group"
_ENTITY = re.compile(_WHO)
_GLUED_ID = re.compile(rf"({_WHO}|{_WHAT})id")
_GLUED_NUMBER = re.compile(rf"({_WHO}|{_WHAT})(no|nr|num)|[a-z]+(nummer|number)")
_ID_NAMES = {"id", "ids", "uuid", "guid"}
_CODE_NAMES = {"zip", "zipcode", "postcode", "postal", "plz"}
_COUNTER_NAMES = {
    *("index", "idx", "row", "rownum", "number", "num", "nr", "no", "nummer", "serial", "seq", "sequence"),
    *("key", "pk", "ref", "reference", "hash", "ticket"),
}
_NO_NAME = re.compile(r"(Unnamed: |column )\d+")
_ORDER_NAMES = {
    *("year", "season", "quarter", "month", "week", "day", "hour", "minute", "second"),
    *("t", "time", "date", "timestamp", "period", "age", "rank"),
}
_MOMENT_NAMES = {
    *("time", "date", "datetime", "timestamp", "stamp", "ts", "epoch", "unix", "utc", "when", "at", "month", "period"),
    *("created", "updated", "modified", "posted", "started", "ended"),
}


def is_id(name: str) -> bool:
    """Whether a name suggests an id: ``customerID``, ``order_id``, ``uuid``; not ``paid``."""
    words = words_of(name)
    return bool({*words} & _ID_NAMES) or any(_GLUED_ID.fullmatch(word) for word in words)


def is_code(name: str) -> bool:
    """Whether numbers with that name are codes without magnitude: ids, zip codes, ``patient``."""
    words = words_of(name)
    return is_entity(name) or bool({*words} & _CODE_NAMES) or words[-1:] == ["code"]


def is_counter(name: str) -> bool:
    """Whether a name suggests a row number: ``index``, ``order_no``, ``Kundennummer``; not ``number_of_rooms``."""
    last = words_of(name)[-1:]
    return bool({*last} & _COUNTER_NAMES or any(map(_GLUED_NUMBER.fullmatch, last)) or _NO_NAME.fullmatch(name))


def is_entity(name: str) -> bool:
    """Whether a name denotes an entity with several rows: an id, ``patient``; not ``patients``."""
    return is_id(name) or any(map(_ENTITY.fullmatch, words_of(name)[-1:]))


def is_order(name: str) -> bool:
    """Whether a name suggests a time or a rank, which may grow from row to row like a row number."""
    return bool({*words_of(name)} & _ORDER_NAMES)


def is_moment(name: str) -> bool:
    """Whether a name suggests a point in time: ``created_at``, ``pickupTime``."""
    return bool({*words_of(name)} & _MOMENT_NAMES)


def words_of(name: str) -> list[str]:
    """Split a name into lower-case words: customerID and customer_id give ``customer`` and ``id``."""
    return [part.lower() for part in _WORD.findall(name)]
