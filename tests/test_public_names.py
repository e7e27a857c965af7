"""What a person imports: the names of the package, and the examples in docstrings."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import unfreeze
import unfreeze.models

MODULES = [module.name for module in pkgutil.walk_packages(unfreeze.models.__path__, "unfreeze.models.")]


def test_a_notebook_finds_the_public_names() -> None:
    assert set(unfreeze.__all__) <= set(dir(unfreeze))
    for name in unfreeze.__all__:
        assert callable(getattr(unfreeze, name))
    with pytest.raises(AttributeError, match="Imagse"):
        unfreeze.Imagse  # noqa: B018


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import sys, unfreeze; print(*({'torch', 'pandas', 'sklearn', 'prefect', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
