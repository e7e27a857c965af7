import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TableDataSpec, TrainTables
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.network import (
    CategoryEmbeddings,
    NumberEmbeddings,
    SharedDropout,
    network_of,
    summarise_table,
)
from unfreeze.models.tables.serving import predict_encoded
from unfreeze.models.training.network import Network, layer_groups

ROWS, CPU = 600, torch.device("cpu")


def frame() -> pd.DataFrame:
    """What a number says depends on the category: up with it for a, down with it for b, nothing for c."""
    random = np.random.default_rng(0)
    kind, number = random.choice(list("abc"), ROWS), random.normal(size=ROWS)
    slope = np.select([kind == "a", kind == "b"], [1.0, -1.0])
    columns = {"kind": kind, "number": number, "sales": 5000 + 300 * slope * number}
    return pd.DataFrame({**columns, "large": np.where(columns["sales"] > 5000, "yes", "no")})


def made(target: str, **changes: object) -> tuple[Network, TableEncoder, Encoded, np.ndarray]:
    other = {"sales": "large", "large": "sales"}[target]
    data = TableDataSpec(target=[target], drop=[other])
    encoder = TableEncoder.fit(frame(), np.arange(ROWS), data)
    small = {"model.members": 4, "model.width": 16, "model.dropout": 0, "model.embedding_dropout": 0}
    network = network_of(build_spec(TrainTables, {"data": data.model_dump()}, {**small, **changes}), encoder)
    return network, encoder, encoder.transform(frame()), encoder.targets(frame())


def inputs(encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(encoded.categorical).long(), torch.from_numpy(encoded.continuous)


@pytest.mark.parametrize("target", ["sales", "large"])
def test_every_member_answers_in_training_and_all_together_afterwards(target):
    network, encoder, encoded, _ = made(target)
    network.train()
    members = network(inputs(encoded))
    assert members.shape == (ROWS, 4, encoder.target.outputs)
    assert not torch.allclose(members[:, 0], members[:, 1])
    network.eval()
    together = network(inputs(encoded))
    assert together.shape == (ROWS, encoder.target.outputs)
    if target == "large":
        torch.testing.assert_close(together.softmax(dim=1), members.softmax(dim=2).mean(dim=1))
    else:
        torch.testing.assert_close(together, members.mean(dim=1))


@pytest.mark.parametrize(
    ("target", "given", "expected"), [("large", None, 0.1), ("sales", None, 0), ("sales", 0.3, 0.3)]
)
def test_classes_have_dropout_by_default_and_numbers_have_none(target, given, expected):
    network = made(target, **{"model.dropout": given})[0]
    assert {layer.p for layer in network.modules() if isinstance(layer, SharedDropout)} == {expected}


def test_a_regression_begins_within_the_scale_of_its_targets():
    network, encoder, encoded, _ = made("sales")
    predictions = predict_encoded(network, encoded, CPU)[:, 0]
    assert float((predictions - encoder.target_means[0]).abs().max()) < 2 * encoder.target_deviations[0]


@pytest.mark.parametrize("target", ["sales", "large"])
def test_what_a_number_says_may_depend_on_a_category(target):
    network, encoder, encoded, targets = made(target)
    wanted, optimizer = torch.from_numpy(targets), torch.optim.AdamW(network.parameters(), lr=0.01)
    network.train()
    for _ in range(150):
        outputs = network(inputs(encoded)).flatten(0, 1)
        answers = wanted.repeat_interleave(4, dim=0)
        if encoder.classes:
            loss = functional.cross_entropy(outputs, answers)
        else:
            loss = functional.mse_loss(outputs / encoder.target_deviations[0], answers / encoder.target_deviations[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predictions = encoder.target.predictions(predict_encoded(network, encoded, CPU))
    if encoder.classes:
        known = frame()["kind"] != "c"  # of the third kind all rows are at the border
        assert (predictions.argmax(axis=1) == targets)[known].mean() > 0.97
    else:
        assert np.sqrt(np.square(predictions - targets).mean()) < 0.1 * targets.std()


def test_the_seed_decides_the_weights():
    (first, *_), (same, *_), (other, *_) = made("sales"), made("sales"), made("sales", seed=1)
    assert torch.equal(first.head.weight, same.head.weight)
    assert torch.equal(first.body.signs, same.body.signs)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_row_is_predicted_the_same_whatever_is_beside_it():
    network, _, encoded, _ = made("sales")
    together = predict_encoded(network, encoded, CPU)
    for row in (0, 255, 256, ROWS - 1):
        assert torch.equal(predict_encoded(network, encoded.rows(np.array([row])), CPU), together[[row]])


def test_embeddings_are_the_early_group_and_outputs_the_head():
    network, encoder, *_ = made("large")
    early, late, head = layer_groups(network)
    assert "body.embeddings.0.weight" in early.parameters
    assert {"body.numbers.slope", "body.numbers.bends", "body.numbers.bias"} <= set(early.parameters)
    assert "body.signs" in late.parameters
    assert set(head.parameters) == {"head.weight", "head.bias"}
    rows = summarise_table(network, list(encoder.categorical))
    assert {row["layer"]: row["layer_group"] for row in rows}["embedding of kind"] == "early"
    assert sum(int(str(row["parameters"])) for row in rows) == sum(each.numel() for each in network.parameters())


def test_a_rare_category_says_little_and_an_unseen_one_nothing():
    embeddings = CategoryEmbeddings([([0, 5, 95], 5.0, 4)], dropout=0).eval()
    embedding, vectors = embeddings[0], embeddings(torch.tensor([[0], [1], [2]]))
    assert vectors[0].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(vectors[1], embedding.weight[1] / 2)
    torch.testing.assert_close(vectors[2], embedding.weight[2] * 0.95)
    torch.testing.assert_close(vectors, embedding.vectors())


def test_in_training_some_categories_are_as_if_unseen():
    torch.manual_seed(0)
    embeddings = CategoryEmbeddings([([0, 100], 1.0, 3), ([0, 60, 40], 1.0, 2)], dropout=0.25).train()
    both = embeddings(torch.ones(4_000, 2, dtype=torch.int64))
    for embedding, vectors in zip(embeddings, both.split([3, 2], dim=1), strict=True):
        hidden = (vectors == 0).all(dim=1)
        assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.03)
        shown = vectors[~hidden]
        torch.testing.assert_close(shown, embedding.vectors()[[1]].expand_as(shown))


def test_columns_are_looked_up_side_by_side_as_each_by_itself():
    torch.manual_seed(0)
    columns = [([0, 5, 95], 5.0, 4), ([10, 0], 1.0, 1), ([1] * 300, 20.0, 50)]
    embeddings = CategoryEmbeddings(columns, dropout=0)
    codes = torch.stack([torch.randint(len(rows), (64,)) for rows, _, _ in columns], dim=1)
    expected = torch.cat([each.vectors()[codes[:, place]] for place, each in enumerate(embeddings)], dim=1)
    found = embeddings(codes)
    assert torch.equal(found, expected)
    weights = [each.weight for each in embeddings]
    factors = torch.randn_like(found)
    for one, other in zip(
        *(torch.autograd.grad((each * factors).sum(), weights) for each in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_table_of_numbers_alone_has_no_vector():
    assert CategoryEmbeddings([], dropout=0.1)(torch.empty(7, 0, dtype=torch.int64)).shape == (7, 0)


def test_a_number_begins_as_a_straight_line_and_bends_at_the_edges_of_its_bins():
    numbers = NumberEmbeddings(1, bins=2, width=1)  # the only edge inside is at the median
    grid = torch.linspace(-3, 3, 7)[:, None]
    steps = numbers(grid).diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    with torch.no_grad():
        numbers.bends[0, 1, 0] = 1.0
    bent = numbers(grid).diff(dim=0)
    torch.testing.assert_close(bent[:3], steps[:3])
    torch.testing.assert_close(bent[3:] - steps[3:], (1 / numbers.edges[2]).expand(3, 1))
