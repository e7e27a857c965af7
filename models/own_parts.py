"""Losses, heads and metrics of the user's own: functions in a file or module, named in settings as ``my.py:focal``."""

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Collection
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.store.paths import given_path


def is_own(name: str) -> bool:
    """Whether a name in a setting is that of a function of the user's own."""
    return ":" in name


def own_part(field: str, name: str, known: Collection[str]) -> tuple[str, Callable[..., Any]]:
    """Import a function by ``path/to/file.py:function`` or ``package.module:function``.

    A module is searched in the working folder after Python's import path, however the program was started. What the
    function raises becomes a `UserError` in one line.

    Parameters
    ----------
    field
        The setting, for error messages.
    known
        Names that the setting takes besides.

    Returns
    -------
    tuple of str and callable
        The function's name, and the function.

    Raises
    ------
    UserError
        If it cannot be imported or called; names what was searched and where, or lists the `known` names.
    """
    module, colon, function = name.rpartition(":")
    is_file = module.endswith(".py")
    if not (colon and function.isidentifier() and (is_file or all(part.isidentifier() for part in module.split(".")))):
        others = f"one of {', '.join(known)}, nor " if known else ""
        raise UserError(
            f"{field}: {name!r} is not {others}a `file.py:function` or "
            f"`package.module:function` of your own{_nearest(name, known)}"
        )
    imported = _imported(field, name, module, is_file)
    part = getattr(imported, function, None)
    if callable(part):
        return function, _explained(field, name, part)
    functions = [each for each, value in vars(imported).items() if callable(value) and not each.startswith("_")]
    where = getattr(imported, "__file__", None) or module
    raise UserError(f"{field}: {name!r}: {where} has no function {function}{_nearest(function, functions)}")


def check_own_parts(params: Any) -> None:
    """Import the functions of the user's own that a training's settings name; raises as `own_part`."""
    named = {"optimizer.loss": params.optimizer.loss, "model.head": getattr(params.model, "head", None) or ""}
    for field, name in [*named.items(), *(("metrics", name) for name in params.metrics)]:
        if is_own(name):
            own_part(field, name, ())


def _imported(field: str, name: str, module: str, is_file: bool) -> ModuleType:
    folder, looked = Path.cwd(), ""
    if is_file:
        path = given_path(module).absolute()
        if not path.is_file():
            raise UserError(f"{field}: {name!r}: there is no file {path}")
        folder, module = path.parent, path.stem
    else:
        looked = f"; looked in the working folder {folder} and on Python's import path, PYTHONPATH"
    if not {"", str(folder)} & set(sys.path):
        sys.path.append(str(folder))  # permanently, for later imports by the module
    importlib.invalidate_caches()  # the file may be newer than the cached folder listing
    try:
        return _run(path, path.stat().st_mtime_ns) if is_file else importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing runs arbitrary code
        raise UserError(
            f"{field}: {name!r}: importing {module} failed: {type(error).__name__}: {one_line(error)}{looked}"
        ) from error


@cache
def _run(path: Path, changed: int) -> ModuleType:
    """Import a file, again if it has changed; no other module of its name can hide it."""
    spec = importlib.util.spec_from_file_location(f"unfreeze_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _explained(field: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            if "out of memory" in str(error):  # explained elsewhere
                raise
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"{field}: {name} failed in {frame.filename}, line {frame.lineno}: {what}") from error

    return call


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
