"""The same image in several class folders: either a mistake, or an image with several labels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import ListedFile, Listing
from unfreeze.models.reading.labels import SEPARATOR, Labels, join

FEWEST, SHARE = 10, 0.25
"""Images in several class folders, at least as many and as large a share of all, are not there by mistake."""


def unite_copies(listing: Listing, hashes: Sequence[str], labels: Labels) -> tuple[Listing, list[str]]:
    """Give an image that is in several class folders all of their labels, once.

    That is done if `labels` say so, or where a quarter of all images, and at least ten, are in several folders. A table
    names all labels of an image in its rows, so copies are left alone there.

    Parameters
    ----------
    listing, hashes
        Files, and hashes of their content; empty for one that cannot be read.
    labels
        See `data.labels`.

    Returns
    -------
    tuple
        The listing and its hashes: each content once for each side of the source's own split.

    Raises
    ------
    UserError
        If the name of a folder cannot be a label.
    """
    if labels == "single" or listing.is_table:
        return listing, list(hashes)
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for file, content in zip(listing.files, hashes, strict=True):
        # A file that cannot be read is no copy of another one.
        found[content or str(file.path), file.split].append(file.label)
    shared = sum(len(set(each)) > 1 for each in found.values())
    if labels == "auto" and (shared < FEWEST or shared < SHARE * len(found)):
        return listing, list(hashes)
    if wrong := sorted({file.label for file in listing.files if SEPARATOR in file.label}):
        raise UserError(
            f"{listing.name}: the folder {wrong[0]!r} holds {SEPARATOR!r}, which separates labels; rename it"
        )
    files: dict[tuple[str, str | None], tuple[ListedFile, str]] = {}
    for file, content in zip(listing.files, hashes, strict=True):
        key = (content or str(file.path), file.split)
        files.setdefault(key, (file._replace(label=join(found[key])), content))
    how = (
        f"any number of labels per image: {shared:,} of {len(found):,} images are in several class folders; "
        "`--data.labels single` rejects those"
    )
    kept = [file for file, _ in files.values()]
    return replace(listing, files=tuple(kept), multiple=True, how=how), [content for _, content in files.values()]
