"""Standard JSON, which has no NaN and no infinity."""

import json
import math
from typing import Any


def to_json(value: Any, **settings: Any) -> str:
    """Serialise as `json.dumps` does, with null for non-finite numbers.

    Examples
    --------
    >>> to_json({"auc": float("nan"), "losses": [0.5, float("inf")]})
    '{"auc": null, "losses": [0.5, null]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **settings)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
