"""The first command of a new user: example images, a model of them, and what to type next."""

import sys
from typing import Annotated

from cyclopts import Parameter

from unfreeze.flows.commands.flags import Json
from unfreeze.flows.commands.training import train
from unfreeze.models.store.paths import given_path

SETTINGS = {
    "data.size": "32",
    "augment.preset": "basic",
    "tracking.model_name": "digits-classifier",
}
"""Digits of 8 by 8 pixels need no larger images, and a mirrored one is no digit."""


def demo(
    folder: Annotated[str, Parameter(help="New folder for the images.")] = "unfreeze-demo", /, *, json: Json = False
) -> int:
    """Train a classifier of handwritten digits, in about a minute; the images stay for the other commands."""
    from unfreeze.models.images.listing.data_sets import write_examples

    place = write_examples(given_path(folder))
    print(f"500 handwritten digits in {place / 'digits'}, 20 without a label in {place / 'new'}", file=sys.stderr)
    status = train(str(place / "digits"), given=SETTINGS, json=json)
    if status == 0:
        print(
            "\nNext, with these images or a folder of class folders of your own:\n"
            f"  unfreeze look {place / 'digits'}                       copies and wrong labels, as a page\n"
            f"  unfreeze predict digits-classifier {place / 'new'}     what the model makes of new images\n"
            f"  unfreeze explain digits-classifier {place / 'new'}     where it looks, as a page\n"
            "  unfreeze up                                           pages, forms and schedules",
            file=sys.stderr,
        )
    return status
