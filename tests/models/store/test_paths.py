from pathlib import Path

import pytest

from unfreeze.models.store.paths import given_path


def test_the_home_folder_is_put_in_and_the_name_of_no_user_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert given_path("~/photos") == Path("/home/ada/photos")
    assert given_path(Path("~no-such-user") / "photos") == Path("~no-such-user/photos")
    assert given_path("photos~") == Path("photos~")
