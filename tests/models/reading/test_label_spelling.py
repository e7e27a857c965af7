from unfreeze.models.reading.labels import spelled_differently


def test_case_blanks_hyphens_and_unicode_forms_are_spellings_of_one_label():
    labels = ["Red Fox", "red_fox ", "red-fox", "K\u00e4fer", "Ka\u0308fer", "owl", "A", "a", "-1", "1"]
    assert spelled_differently(labels) == [["Ka\u0308fer", "K\u00e4fer"], ["Red Fox", "red-fox", "red_fox "]]
