"""What the name of a column says about it."""

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_GLUED_ID = re.compile(
    r"(u|user|customer|client|member|person|patient|pat|subject|subj|case|household|student|employee|firm|"
    r"order|product|item|store|shop|transaction|session|account|device|record|row|sample|event|group)id"
)
_ID_NAMES = {"id", "ids", "uuid", "guid"}
_CODE_NAMES = {"zip", "zipcode", "postcode", "postal", "plz"}
_COUNTER_NAMES = {"index", "idx", "row", "rownum", "number", "nr", "no"}
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
    """Whether a name is that of an id: ``customerID``, ``order_id``, ``uuid``; not ``paid``."""
    words = words_of(name)
    return bool({*words} & _ID_NAMES) or any(_GLUED_ID.fullmatch(word) for word in words)


def is_code(name: str) -> bool:
    """Whether numbers of that name are codes, of which more is not more: ids, zip codes."""
    words = words_of(name)
    return is_id(name) or bool({*words} & _CODE_NAMES) or words[-1:] == ["code"]


def is_counter(name: str) -> bool:
    """Whether a name is that of a row number: ``index``, ``order_number``; not ``number_of_rooms``."""
    return bool({*words_of(name)[-1:]} & _COUNTER_NAMES or _NO_NAME.fullmatch(name))


def is_order(name: str) -> bool:
    """Whether a name is that of a time or a rank, which may grow from row to row as row numbers do."""
    return bool({*words_of(name)} & _ORDER_NAMES)


def is_moment(name: str) -> bool:
    """Whether a name is that of a moment: ``created_at``, ``pickupTime``."""
    return bool({*words_of(name)} & _MOMENT_NAMES)


def words_of(name: str) -> list[str]:
    """Words in lower case: those of customerID and customer_id are ``customer`` and ``id``."""
    return [part.lower() for part in _WORD.findall(name)]
