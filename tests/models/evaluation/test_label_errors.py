import numpy as np

from unfreeze.models.evaluation.label_errors import find_label_errors, find_label_set_errors

SURE = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])


def test_rows_that_the_model_is_sure_of_are_not_suspected():
    assert len(find_label_errors(SURE, np.array([0, 0, 1, 1]))[0]) == 0


def test_a_swapped_label_is_found_with_the_class_that_it_seems_to_be_of():
    probabilities = np.concatenate([np.tile(SURE, (10, 1)), [[0.02, 0.98]]])
    labels = np.concatenate([np.tile([0, 0, 1, 1], 10), [0]])
    found = find_label_errors(probabilities, labels)
    assert found[0].tolist() == [40]
    assert found[1].tolist() == [1]


def test_thresholds_are_the_mean_self_confidence_of_each_class():
    # Class 0: (0.6 + 0.5) / 2 = 0.55 and class 1: (0.7 + 0.3) / 2 = 0.5, so that 0.5 of class 1 suffices, and 0.5 of
    # class 0 does not.
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5], [0.3, 0.7], [0.7, 0.3]])
    found = find_label_errors(probabilities, np.array([0, 0, 1, 1]))
    assert found[0].tolist() == [3, 1]  # 0.3 of its own label is more suspicious than 0.5
    assert found[1].tolist() == [0, 1]


def test_nothing_belongs_to_a_class_without_rows():
    probabilities = np.array([[0.1, 0.0, 0.9], [0.1, 0.8, 0.1]])
    assert len(find_label_errors(probabilities, np.array([0, 1]))[0]) == 0


def test_as_many_are_found_as_were_swapped_in_a_separable_set():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.05)
    probabilities[np.arange(300), truth] = 0.9
    labels = truth.copy()
    swapped = generator.choice(300, 15, replace=False)
    labels[swapped] = (labels[swapped] + 1) % 3
    found = find_label_errors(probabilities, labels)
    assert set(found[0]) == set(swapped)
    np.testing.assert_array_equal(found[1], truth[found[0]])


def test_a_row_of_several_labels_is_suspected_by_each_of_them():
    generator = np.random.default_rng(0)
    truth = generator.random((200, 3)) < 0.4
    sure = generator.uniform(0.9, 0.97, truth.shape)
    sure[9] = 0.98
    probabilities = np.where(truth, sure, 1 - sure)
    probabilities[7, 0] = 0.999 if truth[7, 0] else 0.001
    actual = truth.copy()
    actual[7, 0], actual[9, 1:] = ~truth[7, 0], ~truth[9, 1:]
    found = find_label_set_errors(probabilities, actual)
    assert found[0].tolist() == [7, 9]
    assert found[1].tolist() == [[True, False, False], [False, True, True]]
    np.testing.assert_allclose(found[2], [0.001, 0.02])


def test_a_label_without_rows_is_suspected_nowhere():
    found = find_label_set_errors(np.array([[0.9, 0.2], [0.8, 0.1]]), np.array([[True, False], [True, False]]))
    assert len(found[0]) == 0
