"""HTML page written by an estimator, shown where a notebook displays it."""

import html
import os
from pathlib import Path

from unfreeze.models.errors import UserError


class Page(os.PathLike[str]):
    """HTML file that a notebook displays.

    Attributes
    ----------
    path
        Its absolute path.

    Examples
    --------
    >>> from unfreeze.estimators.page import Page
    >>> Page.write("hello.html", "<p>Hello</p>").path.name
    'hello.html'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    @classmethod
    def write(cls, path: str | Path, text: str) -> "Page":
        """Write a page; raises `UserError` if that fails."""
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"out: cannot write {path}: {error.strerror}; give the name of a file") from error
        return cls(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Page({str(self.path)!r})"

    def _repr_html_(self) -> str:
        text = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{text}" style="width: 100%; height: 640px; border: 1px solid #ccc"></iframe>'
