"""Settings of an estimator: the constructor's keywords, and a configuration for all others."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import Modality, modality
from unfreeze.models.settings import Training
from unfreeze.models.settings.fields import fields_by_name
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store.paths import given_path

Config = Mapping[str, Any] | Training | str | Path
"""Settings: nested or by dotted name, a spec, or a YAML or JSON file."""


class Configured(BaseEstimator):  # type: ignore[misc]
    """Settings of an estimator, see `Estimator`."""

    kind: ClassVar[str]
    keywords: ClassVar[Mapping[str, str]]
    """Keyword of the constructor -> dotted name of the setting."""
    source: Any
    config: Config | None
    tracked: bool
    device: str | None

    def _keep(self, given: dict[str, Any]) -> None:
        """Set the constructor's arguments as attributes, and reject bad settings at once."""
        given = dict(given)  # a debugger or coverage refreshes the dictionary of `locals()`
        unknown = given.pop("unknown")
        for name in ("self", "__class__"):
            given.pop(name, None)
        for name, value in given.items():
            setattr(self, name, value)
        if unknown:
            raise self._unknown(next(iter(unknown)))
        self._spec({})

    @property
    def spec(self) -> Training:
        """The complete settings, including defaults."""
        return self._spec({"data.source": str(self.source)} if isinstance(self.source, str | Path) else {})

    def _spec(self, given: Mapping[str, Any]) -> Training:
        """The complete settings; those `given` by dotted name win over all others."""
        config, kind = self._config(), self._modality
        dotted = {name: value for name, value in config.items() if "." in name}
        nested = {name: value for name, value in config.items() if name not in dotted}
        own = {name: getattr(self, keyword) for keyword, name in self.keywords.items()}
        overrides = {**dotted, **{name: value for name, value in own.items() if value is not None}, **given}
        spec: Training = kind.complete(build_spec(kind.spec, nested, overrides))
        return spec

    def _config(self) -> Mapping[str, Any]:
        if isinstance(self.config, str | Path):
            from unfreeze.flows.commands.settings_file import read_settings

            return read_settings(given_path(self.config))
        if isinstance(self.config, Training):
            return self.config.model_dump()
        if not isinstance(self.config, Mapping | None):
            raise UserError(f"config: given a {type(self.config).__name__}; give a mapping of settings, or a file")
        return self.config or {}

    def _unknown(self, name: str) -> UserError:
        """Error for an unknown keyword, with the closest one or the setting to write in `config`."""
        last, own = f".{self.spec.recipe[-1].name}.", list(self.get_params())
        others = {
            part: field.replace(".N.", last).rpartition(f".{part}")[0] + f".{part}" if part != field else field
            for field in reversed(fields_by_name(self._modality.spec))
            for part in field.split(".")
            if part not in ("N", "modality")
        }
        close = name if name in others else next(iter(difflib.get_close_matches(name, [*own, *others], n=1)), "")
        if close in own:
            return UserError(f"{name}: unknown setting; did you mean {close}?")
        hint = f"write config={{{others[close].lstrip('.')!r}: ...}}" if close else f"keywords: {', '.join(own)}"
        return UserError(f"{name}: no keyword of {type(self).__name__}; {hint}")

    @property
    def _modality(self) -> Modality:
        return modality(self.kind)
