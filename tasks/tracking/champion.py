"""Promotion by hand."""

from unfreeze.tasks.tracking.registry import PREVIOUS, champion_of, full_name, note_decision, set_champion, version_of


def promote(model: str, which: str) -> str:
    """Make a version the champion; returns a line that says what was done.

    Parameters
    ----------
    model
        Registered model, its name in full or short.
    which
        A version's number, an alias, or ``back`` for the champion before this one.

    Raises
    ------
    UserError
        If there is no such model or version.
    """
    name = full_name(model)
    version, champion = version_of(name, PREVIOUS if which == "back" else which), champion_of(name)
    if version == champion:
        return f"{name}: version {version.number} is champion already"
    set_champion(name, version.number)
    instead = f" instead of version {champion.number}" if champion else ""
    note_decision(version, f"Made champion by hand{instead}.", {})
    return f"{name}: version {version.number} is champion{instead}"
