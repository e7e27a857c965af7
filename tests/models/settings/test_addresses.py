import re

import pytest

from unfreeze.models.settings.addresses import WITHOUT_PASSWORD, check_no_password
from unfreeze.models.settings.search import SweepSpec


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://host/name",
        "postgresql+psycopg://ada@db:5432/optuna?sslmode=require",
        "sqlite:///studies.db",
        "mysql:///optuna?user=ada&passwordless=1",
    ],
)
def test_an_address_without_a_password_is_accepted(address: str) -> None:
    assert check_no_password(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ada:s3cret@db/optuna",
        "postgresql:///studies?user=ada&password=s3cret",
        "postgresql:///studies?PassWord=s3cret",
        "postgresql://db/optuna\n?password=s3cret",
        "postgresql://ada@db/optuna@s3cret",
        "studies.db",
        "",
    ],
)
def test_a_password_is_rejected_without_being_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="UNFREEZE_STORAGE_PASSWORD") as caught:
        check_no_password(address)
    assert "s3cret" not in str(caught.value)


def test_the_form_rejects_what_the_validator_does() -> None:
    schema = SweepSpec.model_json_schema()["properties"]["storage"]
    assert schema["pattern"] == WITHOUT_PASSWORD
    assert not re.search(schema["pattern"], "postgresql:///studies?user=ada&password=s3cret")
