"""All kinds of input."""

from tests.fuzz import command_lines, images, kept_files, settings, sources, tables
from tests.fuzz.endings import Kind

KINDS: list[Kind] = [
    command_lines.KIND,
    *settings.KINDS,
    *sources.KINDS,
    *tables.KINDS,
    images.KIND,
    *kept_files.KINDS,
]


def counts(cases: int) -> dict[str, int]:
    """How many cases of each kind, of so many in all."""
    whole = sum(kind.share for kind in KINDS)
    return {kind.name: max(1, round(cases * kind.share / whole)) for kind in KINDS}
