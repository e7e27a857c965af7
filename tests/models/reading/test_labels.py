from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.reading.labels import join, list_in, matrix_of, spelled_differently, split, understand

SETTING = "data.labels"
PETS = ["golden retriever", "labrador retriever", "tabby cat", "siamese cat", "beagle", "pug", "great dane"]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="|,; ", exclude_categories=("Z", "C")), min_size=1)


def labels_of(texts: list[str], **settings: str) -> list[tuple[str, ...]] | None:
    return understand(texts, settings.get("labels", "auto"), settings.get("separator"), SETTING).labels


@given(st.sets(NAMES))
def test_labels_survive_being_one_text(labels):
    assert set(split(join(labels))) == labels


@given(st.lists(st.sets(st.sampled_from("abcdef"), max_size=4), min_size=1), st.randoms(use_true_random=False))
@pytest.mark.parametrize("separator", [" ", ", ", ";", "|"])
def test_the_order_of_words_does_not_matter(separator, sets, random):
    texts = []
    for labels in sets:
        words = sorted(labels)
        random.shuffle(words)
        texts.append(separator.join(words))
    found = labels_of(texts, labels="multiple", separator=separator.strip() or "space")
    assert found == [tuple(sorted(labels)) for labels in sets]


@given(st.lists(st.integers(0, len(PETS) - 1), min_size=1, max_size=200))
def test_names_of_two_words_stay_one_class_however_often_they_occur(rows):
    assert labels_of([PETS[row] for row in rows]) is None


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["a|b", "b|a", "a", "b"], ("a", "b")),
        (["old town| bridge", "river"], ("bridge", "old town")),
        (['["a", "b c"]', "[]", '["a"]'], ("a", "b c")),
        (["['b', 'a']", "['a']"], ("a", "b")),
    ],
)
def test_every_way_of_writing_several_labels_is_found(texts, labels):
    found = understand(texts, "auto", None, SETTING)
    assert found.labels is not None
    assert found.labels[0] == labels
    assert "`--data.labels single`" in found.how


@pytest.mark.parametrize(
    "texts",
    [
        ["Paris, France", "Lyon, France", "Berlin, Germany", "Bonn, Germany"],
        ["maple tree", "oak tree", "tree frog", "bus"],
        ["a;b", "b;a", "a", "b"],
        ["a", "b", "c"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus"],
        ["cat indoor", "dog", "indoor cat", "dog indoor"] * 3,
        ["[draft]", "[final]"],
    ],
)
def test_in_doubt_a_text_is_one_class(texts):
    assert labels_of(texts) is None


def test_a_class_that_could_be_split_is_said_to_be_taken_whole():
    how = understand(PETS, "auto", None, SETTING).how
    assert how == ("one label per image, such as 'golden retriever'; `--data.labels multiple` splits them at spaces")
    assert understand(["cat", "dog"], "auto", None, SETTING).how == ""


def test_settings_go_before_what_the_texts_show():
    assert labels_of(["clear primary", "clear", "primary"], labels="single") is None
    assert labels_of(PETS, labels="multiple")[0] == ("golden", "retriever")
    assert labels_of(["a/b", "c"], separator="/") == [("a", "b"), ("c",)]
    assert labels_of(["one", "two"], labels="multiple") == [("one",), ("two",)]


def test_rows_without_labels_have_none():
    assert labels_of(["cat|dog", "", "cat", "dog"]) == [("cat", "dog"), (), ("cat",), ("dog",)]


def test_a_label_with_the_separator_of_results_is_refused():
    with pytest.raises(UserError, match=r"data\.labels: the label 'a\|b' holds '\|'"):
        labels_of(["a|b c", "c"], separator="space")


@pytest.mark.parametrize("text", ["[", "[]x", "[1", "[[1]]", "[None]", "{'a': 1}", "[open]"])
def test_text_that_is_no_list_of_labels_is_not_taken_for_one(text):
    assert list_in(text) is None


@given(st.lists(st.sets(st.sampled_from("abcd"))))
def test_a_matrix_counts_every_label_once(sets):
    marks = matrix_of([sorted(each) for each in sets], "abcd")
    counts = Counter(label for each in sets for label in each)
    assert marks.shape == (len(sets), 4)
    np.testing.assert_array_equal(marks.sum(0), [counts[label] for label in "abcd"])


def test_case_blanks_hyphens_and_unicode_forms_are_spellings_of_one_label():
    labels = ["Red Fox", "red_fox ", "red-fox", "K\u00e4fer", "Ka\u0308fer", "owl", "A", "a", "-1", "1"]
    assert spelled_differently(labels) == [["Ka\u0308fer", "K\u00e4fer"], ["Red Fox", "red-fox", "red_fox "]]
