import pytest

from unfreeze.models.reading.split_words import split_word_in


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Train", ("train", "")),
        ("seg_train", ("train", "seg")),
        ("imagesTrain", ("train", "images")),
        ("valset", ("valid", "set")),
        ("train2017", ("train", "2017")),
        ("restrain_train", ("train", "restrain")),
        ("Golden_Retriever-val", ("valid", "Golden_Retriever")),
        ("seg-test-images", ("test", "seg-images")),
        ("train_val", None),
        ("testimony", None),
        ("untrained", None),
    ],
)
def test_a_longer_name_has_one_split_word_or_none(name, word):
    assert split_word_in(name) == word
