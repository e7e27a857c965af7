"""A folder with the files that the documentation speaks of, as the working folder of a file's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import draw_user_files


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("notebook")
    draw_user_files(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place
