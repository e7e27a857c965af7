"""The examples of the public names run, and every public method is in one."""

import doctest

import pytest

import unfreeze
from unfreeze.estimators import images, loading, page, tables


@pytest.mark.slow
def test_the_examples_run() -> None:
    for module in (images, tables, loading, page):
        assert doctest.testmod(module).failed == 0


def test_every_public_name_has_an_example_and_so_has_every_method() -> None:
    examples = "".join(str(getattr(unfreeze, name).__doc__) for name in unfreeze.__all__)
    assert all(f"{name}(" in examples for name in unfreeze.__all__)
    for kind in (unfreeze.Images, unfreeze.Tables):
        own = [name for base in kind.__mro__ if base.__module__.startswith("unfreeze.") for name in vars(base)]
        methods = {name for name in own if not name.startswith("_") and callable(getattr(kind, name))}
        assert "predict_proba" in methods
        assert [name for name in sorted(methods) if f".{name}(" not in examples] == []
