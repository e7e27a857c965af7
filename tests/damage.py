"""What disks, networks and kills do to files."""

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def flip_bit(path: Path) -> None:
    """One bit in the middle of the file."""
    _flip(path, 1, 1)


def flip_20_kb(path: Path) -> None:
    """Every bit of 20 kB in the middle, or of the whole file if it is smaller."""
    _flip(path, 20_000, 0xFF)


def truncate(path: Path) -> None:
    """The last third is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])


def empty(path: Path) -> None:
    """Nothing is left but the name, as after a loss of power."""
    path.write_bytes(b"")


def _flip(path: Path, count: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    first = max(0, (len(content) - count) // 2)
    for position in range(first, min(first + count, len(content))):
        content[position] ^= mask
    path.write_bytes(content)


DAMAGES: list[Damage] = [flip_bit, flip_20_kb, truncate, empty]
