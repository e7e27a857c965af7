"""Addresses of servers and databases, without passwords.

Parameters, command lines and logs expose the addresses in them.
"""

import re
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pydantic import AfterValidator

WITHOUT_PASSWORD = r"^(?![\s\S]*[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]=)[A-Za-z][A-Za-z0-9+._-]*://([^:@/]*@)?[^@]*$"
"""Regular expression, valid in Python and in a form's JavaScript, of an address without a password."""

_SECRETS = re.compile(r"sig(nature)?|.*(token|password|secret|credential|key|-signature).*", re.IGNORECASE)
_CONTAINERS = ("az", "abfs", "abfss", "sftp", "ssh", "hdfs")
"""Schemes whose URLs name a container or a user before the ``@``."""


def check_no_credentials(source: str) -> str:
    """Return a path, name or URL, if it contains no password, token or signature.

    Raises
    ------
    ValueError
        Otherwise; the message does not repeat the URL.
    """
    try:
        parts = urlsplit(source)
        queried = parse_qsl(parts.query, keep_blank_values=True) if parts.scheme in ("http", "https") else []
    except ValueError:
        return source
    user, found, _ = parts.netloc.rpartition("@")
    if "://" in source and found and (":" in user or parts.scheme not in _CONTAINERS):
        raise ValueError(_NO_CREDENTIALS)
    if any(_SECRETS.fullmatch(name) for name, _ in queried):
        raise ValueError(_NO_CREDENTIALS)
    return source


_NO_CREDENTIALS = (
    "write the URL without credentials, which everybody could read in the parameters of a run; they belong in the "
    "environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
    "AZURE_STORAGE_ACCOUNT_KEY or HF_TOKEN"
)
Source = Annotated[str, AfterValidator(check_no_credentials)]
"""A path, a name or a URL without credentials."""


def check_no_password(address: str) -> str:
    """Return the address if it is a database address without a password.

    Raises
    ------
    ValueError
        Otherwise; the message does not repeat the address.
    """
    if not re.match(WITHOUT_PASSWORD, address):
        raise ValueError(
            "write it as postgresql://user@host/name; the password is UNFREEZE_STORAGE_PASSWORD in the environment of "
            "every process that runs trials, because everybody can read the parameters of a flow run"
        )
    return address


def split_password(address: str) -> tuple[str, str | None, str | None]:
    """Split the credentials from an address.

    Returns
    -------
    tuple
        The address with the user but without the password, the user, and the password; the latter two may be None.

    Examples
    --------
    >>> split_password("postgresql://ada:s3%40cret@db:5432/optuna")
    ('postgresql://ada@db:5432/optuna', 'ada', 's3@cret')
    >>> split_password("sqlite:///studies.db")
    ('sqlite:///studies.db', None, None)
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return address, None, None
    credentials, separator, place = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    if not separator:
        return address, None, None
    bare = urlunsplit(parts._replace(netloc=f"{user}@{place}" if user else place))
    return bare, unquote(user) or None, unquote(password) if colon else None


def masked(text: str) -> str:
    """Remove the passwords of addresses, even malformed ones, from a text.

    Examples
    --------
    >>> masked("storage postgresql://ada:secret@db/optuna")
    'storage postgresql://ada@db/optuna'
    >>> masked("mysql:///optuna?password=secret&user=ada")
    'mysql:///optuna?password=...&user=ada'
    >>> masked("storage postgresql://ada@db/optuna or ada:secret@db")
    'storage postgresql://ada@db/optuna or ada@db'
    """
    text = re.sub(r"(?i)(password=)[^&\s]*", r"\1...", text)
    text = re.sub(r"(?i)([?&][^=&\s]*(?:sig|signature|token|secret|credential|key)=)[^&\s'\"]*", r"\1...", text)
    text = re.sub(r"(?i)(https?://)[^@/\s'\"]*@", r"\1", text)
    text = re.sub(r"([\w+.-]+:/+[^:@\s'\"]*):[^\s'\"]*@", r"\1@", text)
    return re.sub(r"(^|[\s'\"])([^:@\s'\"/]+):(?!/)[^\s'\"]*@", r"\1\2@", text)  # without a scheme
