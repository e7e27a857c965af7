"""A folder with the files that the documentation speaks of, as the working folder of a file's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import draw_user_files
from unfreeze.models.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("notebook")
    draw_user_files(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def assert_refused_in_a_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
