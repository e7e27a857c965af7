"""Addresses of servers and databases, without passwords.

Parameters, command lines and logs expose the addresses in them.
"""

import re
from urllib.parse import unquote, urlsplit, urlunsplit

WITHOUT_PASSWORD = r"^(?![\s\S]*[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]=)[A-Za-z][A-Za-z0-9+._-]*://([^:@/]*@)?[^@]*$"
"""Regular expression, valid in Python and in a form's JavaScript, of an address without a password."""


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
    text = re.sub(r"([\w+.-]+:/+[^:@\s'\"]*):[^\s'\"]*@", r"\1@", text)
    return re.sub(r"(^|[\s'\"])([^:@\s'\"/]+):(?!/)[^\s'\"]*@", r"\1\2@", text)  # without a scheme
