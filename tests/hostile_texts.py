"""Texts that something obeys instead of showing: markup, formulas, paths, control characters, other scripts."""

import random

PIECES = [
    *(
        "$",
        "$$",
        "$x",
        r"$\frac{1}{",
        "$a$ $b",
        r"\$",
        "\\",
        "{}",
        "{0}",
        "{name!r}",
        "%s",
        "%(a)s",
        "^_^",
        "~",
        "#",
        "# a",
    ),
    *(
        "[red]",
        "[/red]",
        "[/]",
        "[link=x]a[/link]",
        ":smile:",
        "<script>alert(1)</script>",
        "<b>",
        "&amp;",
        "&",
        '"',
        "'",
    ),
    *(
        "a|b",
        "| a |",
        "`",
        "```",
        "![x](y)",
        "[x](http://y)",
        "**a**",
        "- a",
        "1. a",
        "=1+1",
        "+1",
        "@SUM(A1)",
        ",",
        ";",
    ),
    *("a\nb", "a\r\nb", "\t", "\0", "a\0b", "\x1b[31mred", "\x07", "\x7f", "\u2028", "\ufeffa", "\u200b", "\u202eabc"),
    *("../../x", "/etc/passwd", "C:\\x", ".", "..", "a/b", "CON", "~root", "x" * 300, "ü" * 10_000, "é", "e\u0301"),
    *(
        "שלום",
        "مرحبا",
        "日本語",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "\ud800",
        "a\udce9b",
        "\U0010ffff",
        "",
        " ",
        "None",
        "nan",
        "0",
        "True",
    ),
]


def hostile_texts(count: int = 200) -> list[str]:
    """So many different texts: every piece, then several together."""
    texts, chance = dict.fromkeys(PIECES), random.Random(0)
    while len(texts) < count:
        texts["".join(chance.choices(PIECES, k=chance.randint(2, 4)))] = None
    return list(texts)[:count]
