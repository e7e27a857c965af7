"""The few types that columns of a table have after reading: numbers, truths, texts and times."""

import pyarrow as pa
import pyarrow.compute as pc

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks of the units that Arrow and pandas keep times in."""


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """What values of a type become: None for lists, structs, bytes and whatever else has no plain value.

    Dictionaries become their values, decimals floating-point numbers, durations seconds, dates times, times of day
    text, and times with a zone the wall clock of it, see `unfreeze.models.tables.columns.date_texts.parse_dates`.
    """
    types = pa.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_timestamp(kind):
        return pa.timestamp(kind.unit)
    plain = (
        (kind, (types.is_integer, types.is_float32, types.is_float64, types.is_boolean)),
        (pa.float32(), (types.is_float16,)),
        (pa.float64(), (types.is_decimal, types.is_duration)),
        (pa.timestamp("us"), (types.is_date,)),
        (pa.string(), (types.is_string, types.is_large_string, types.is_string_view, types.is_time, types.is_null)),
    )
    return next((wanted for wanted, tests in plain if any(test(kind) for test in tests)), None)


def to_plain(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Values as a plain type that holds theirs; raises what pyarrow does where it does not know a zone."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz:
        values = pc.local_timestamp(values)
    elif pa.types.is_time(kind):
        return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
    elif pa.types.is_duration(kind):
        return pc.divide(values.cast(pa.int64()).cast(pa.float64()), float(PER_SECOND[kind.unit]))
    return values.cast(wanted, safe=not pa.types.is_floating(wanted))
