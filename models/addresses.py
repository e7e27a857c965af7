"""Addresses of servers and databases, and the passwords that must not stay in them.

Whoever may see a parameter, a command line or a log reads what is in an address.
"""

import re
from urllib.parse import unquote, urlsplit, urlunsplit

WITHOUT_PASSWORD = r"^[A-Za-z][A-Za-z0-9+._-]*://([^:@/]*@)?[^@]*$"
"""An address without a password, as a regular expression that forms understand, too."""


def split_password(address: str) -> tuple[str, str | None, str | None]:
    """Take user and password out of an address.

    Returns
    -------
    tuple
        The address with the user but without the password, the user and the password, each None where there is none.

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
    """The text with the passwords of addresses removed, also of those that are malformed.

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
