"""Images that a person leaves out, such as those with a wrong label."""

import os
from dataclasses import replace

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.store.paths import given_path


def without_excluded(listing: Listing, excluded: str | None) -> tuple[Listing, str]:
    """The listing without the images whose paths a text file lists, one a line; and what was left out, in words.

    Relative paths begin at the file's folder. A path that is not in the listing is no error: the image may be gone.

    Raises
    ------
    UserError
        If the file cannot be read, or fewer than two classes are left.
    """
    if excluded is None:
        return listing, ""
    file = given_path(excluded)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(
            f"data.exclude: cannot read {excluded}: {reason}; give a text file with a path a line"
        ) from error
    place = file.resolve().parent
    wanted = {os.path.abspath(place / line) for line in lines if line}
    kept = tuple(each for each in listing.files if os.path.abspath(each.path) not in wanted)
    if len({each.label for each in kept}) < 2:
        raise UserError(f"data.exclude: {excluded} leaves fewer than two classes of {listing.name}")
    left_out = len(listing.files) - len(kept)
    note = f"{left_out:,} images are left out by {excluded}"
    if left_out < len(wanted):
        note += f", which lists {len(wanted) - left_out:,} more that are not there"
    return replace(listing, files=kept), note
