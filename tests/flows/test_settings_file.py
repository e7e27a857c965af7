"""Whatever a file of settings holds, it is read as it looks or refused in one line."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, strategies as st

from unfreeze.flows.commands.settings_file import MOST_BYTES, parse_json, parse_yaml, read_settings
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.retrain import Retrain
from unfreeze.models.settings.search import SweepSpec
from unfreeze.models.settings.tables import TrainTables

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


def refusal(text: str, suffix: str = "yaml") -> str:
    with pytest.raises(UserError) as refused:
        (parse_json if suffix == "json" else parse_yaml)(text, f"settings.{suffix}")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def read_as(spec: type[Any], text: str) -> Any:
    return build_spec(spec, parse_yaml(text, "settings.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: -12", {"a": "-12"}),
        ("a: true", {"a": "true"}),
        ("a:", {"a": ""}),
        ("a: '1'", {"a": "1"}),
        ("a: [010, {b: no}]", {"a": ["010", {"b": "no"}]}),
        ("a:\n- 1\n- b: |\n    two\n    lines\n", {"a": ["1", {"b": "two\nlines\n"}]}),
        ("1: x\ntrue: 2026-01-02", {"1": "x", "true": "2026-01-02"}),
        ("# nothing\n", None),
        ("", None),
    ],
)
def test_values_of_yaml_stay_text(text: str, value: Any) -> None:
    assert parse_yaml(text, "settings.yaml") == value


@pytest.mark.parametrize(
    ("text", "seed"), [("seed: 10", 10), ("seed: 010", 10), ("seed: 1_000", 1000), ("seed: '7'", 7), ("seed: 1.0", 1)]
)
def test_a_whole_number_is_decimal(text: str, seed: int) -> None:
    assert read_as(TrainImages, text).seed == seed


@pytest.mark.parametrize("text", ["1:30", "0x10", "0o17", "yes", "1.5", ".inf", "nan"])
def test_another_text_is_no_whole_number(text: str) -> None:
    with pytest.raises(UserError, match="seed: given"):
        read_as(TrainImages, f"seed: {text}")


def test_a_text_field_keeps_words_and_numbers_with_leading_zeros_as_they_are() -> None:
    for text in ("no", "on", "010", "1e3", "2026-01-02", "12:30"):
        assert read_as(TrainImages, f"tracking: {{run_name: {text}}}").tracking.run_name == text


def test_yes_and_off_are_true_and_false_only_where_a_switch_is() -> None:
    assert read_as(TrainImages, "tracking: {system_metrics: off}").tracking.system_metrics is False
    assert read_as(TrainTables, "trees: yes").trees is True


def test_rates_may_have_an_exponent() -> None:
    assert read_as(TrainImages, "optimizer: {weight_decay: 1E-3}").optimizer.weight_decay == 1e-3


@pytest.mark.parametrize("number", [".nan", ".inf", "nan", "1e999", "1.0e+999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    with pytest.raises(UserError, match="dropout: given"):
        read_as(TrainImages, f"model: {{dropout: {number}}}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "line 2, column 8: aliases (*) are not supported"),
        ("[" * 1000, "nested too deep"),
        ("[a]: 1", "keys must be"),
        ('a: "\\ud800"', "surrogates not allowed"),
        ("seed: 1\ndata: {}\nseed: 2\n", 'line 3, column 1: found duplicate key "seed"'),
        ("a: {b: 1, 'b': 2}", 'line 1, column 11: found duplicate key "b"'),
        ("a: 1\n---\nb: 2", "found another document"),
        ('a: "\\UFFFFFFFF"', "settings.yaml"),
    ],
)
def test_yaml_that_explodes_or_hides_something_is_refused(text: str, problem: str) -> None:
    assert problem in refusal(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"seed": 1, "data": {}, "seed": 2}', "'seed' is given twice"),
        ('{"a": [{"b": 1, "b": 2}]}', "'b' is given twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": 010}', "line 1, column 8"),
    ],
)
def test_json_that_is_ambiguous_or_no_number_is_refused(text: str, problem: str) -> None:
    assert problem in refusal(text, "json")


@pytest.mark.parametrize("text", ['{"seed": NaN}', '{"seed": 1e999}'])
def test_json_values_that_no_setting_takes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="given"):
        build_spec(TrainImages, parse_json(text, "settings.json"))


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text("ab:-[]{},&*!|>'\"%@?#\\\n 01.e~<", max_size=60))
@example("\x00")
@example("%YAML 1." + "9" * 5000 + "\n--- a")
@example("? a")
def test_any_text_is_settings_or_is_refused(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            value = parse(text, "settings")
            build_spec(TrainImages, value if isinstance(value, dict) else {})
        except UserError:
            continue


# PyYAML itself loses U+0085 where it writes unescaped Unicode.
letters = st.characters(codec="utf-8", exclude_characters="\x85")
words = st.text(letters, min_size=1, max_size=12) | st.sampled_from(
    ["010", "1e3", "1e-3", "no", "null", "1:30", "0x1", "true"]
)
numbers = st.floats(min_value=0, max_value=100, exclude_min=True)


@given(words, words, numbers, st.integers(0, 2**31 - 1), st.booleans(), st.lists(words, max_size=3))
def test_what_a_training_dumps_is_read_back_equal(
    source: str, column: str, lr: float, seed: int, switch: bool, metrics: list[str]
) -> None:
    overrides = {
        "data.source": source,
        "data.path_column": column,
        "data.split_column": column,
        "recipe.full.lr": lr,
        "optimizer.clip_norm": max(lr, 1),
        "seed": seed,
        "tracking.system_metrics": switch,
        "metrics": metrics,
    }
    spec = build_spec(TrainImages, {}, overrides)
    plain = spec.model_dump(mode="json")
    assert build_spec(TrainImages, parse_yaml(yaml.safe_dump(plain), "dumped")) == spec
    assert build_spec(TrainImages, parse_yaml(yaml.safe_dump(plain, allow_unicode=True), "dumped")) == spec
    assert build_spec(TrainImages, parse_json(json.dumps(plain), "dumped")) == spec


@pytest.mark.parametrize("spec", [TrainImages, TrainTables, SweepSpec, Retrain])
def test_the_defaults_of_every_spec_are_read_back_equal(spec: Any) -> None:
    assert read_as(spec, yaml.safe_dump(spec().model_dump(mode="json"))) == spec()


def test_a_file_of_settings_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("#" * (MOST_BYTES + 1))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.json"))
        for path, problem in {
            tmp_path: "is a folder",
            tmp_path / "pipe.yaml": "is a named pipe",
            tmp_path / "s.json": "is a socket",
            Path("/dev/zero"): "is a device",
            tmp_path / "large.yaml": "is larger than",
            tmp_path / "absent.yaml": "there is no file",
        }.items():
            with pytest.raises(UserError, match=problem):
                read_settings(path)


def test_a_byte_order_mark_is_no_setting(tmp_path: Path) -> None:
    for name, text in {"a.yaml": "seed: 3", "a.json": '{"seed": 3}'}.items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_settings(tmp_path / name) in ({"seed": "3"}, {"seed": 3})
