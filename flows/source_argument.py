"""SOURCE on the command line: what it can be, and whether it is there."""

import argparse
import sys
from pathlib import Path

from unfreeze.flows.flags import FlagParser, add_flags, spec_from
from unfreeze.models.settings import Spec, TrainImages
from unfreeze.models.settings.overrides import SpecType
from unfreeze.models.settings.predict import Explain, Predict
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.paths import given_path

SOURCES: dict[type[Spec], str] = {
    TrainImages: "`digits`, a folder of class folders, a CSV or feather file, or a torchvision data set "
    "(default: digits)",
    TrainTables: "a file of CSV or other separated text, a spreadsheet, a Parquet or feather file, a folder of Parquet "
    "files, or `flights` (default: flights)",
    Explain: "images, folders of images or `digits`; or a table's file, with the column of its target",
    Predict: "a folder of images, an image, a file of image paths, a table's file, or `digits` (default: digits)",
}
"""What can be given as SOURCE."""
EMBEDDED = {"digits", "flights"}
"""Sources that need no file."""


def add_source(parser: FlagParser, spec_class: type[Spec]) -> None:
    """SOURCE and every setting, as arguments of a command."""
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCES[spec_class])
    add_flags(parser, spec_class)


def params_from(options: argparse.Namespace, spec_class: type[SpecType]) -> SpecType:
    """The settings that were given to a command with `add_source`."""
    fixed = {"data.source": options.source} if options.source is not None else {}
    return spec_from(options, spec_class, **fixed)


def checked_params(options: argparse.Namespace, spec_class: type[SpecType]) -> SpecType:
    """The same, if their source is there: a slip should not wait for Prefect and torch."""
    params = params_from(options, spec_class)
    if isinstance(params, TrainTables):
        from unfreeze.models.tables.preparing.sources import check_sources

        check_sources(params.data)
    elif isinstance(params, TrainImages):
        from unfreeze.models.images.listing.sources import check_source

        check_source(params.data.source)
    return params


def understood_params(options: argparse.Namespace, spec_class: type[SpecType]) -> SpecType:
    """The same, with a line that says how the files of an image source are understood, before anything is started."""
    params = checked_params(options, spec_class)
    if isinstance(params, TrainImages) and given_path(params.data.source).exists() and params.data.source != "digits":
        from unfreeze.models.images.listing.sources import resolve_source

        print(resolve_source(params.data, Path()).understood, file=sys.stderr)
    return params
