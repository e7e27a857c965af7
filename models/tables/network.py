"""Table network: embeddings of categories and numbers, and an ensemble of small networks in one.

Categories after Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016, and fastai 0.7
(``MixedInputModel``). Numbers after Gorishniy et al., "On embeddings for numerical features in tabular deep learning",
2022. The ensemble after Gorishniy et al., "TabM: Advancing tabular deep learning with parameter-efficient ensembling",
2024 (TabM-mini): members share all hidden layers; each has its own input signs and its own output layer.
"""

from collections.abc import Sequence
from itertools import islice
from typing import cast

import torch
from scipy.special import ndtri
from torch import nn
from torch.nn import functional

from unfreeze.models.settings.tables import TableModelSpec, TrainTables
from unfreeze.models.tables.columns.encoding import TAIL, TableEncoder, embedding_width
from unfreeze.models.training.network import Network

Column = tuple[Sequence[int], float, int]
"""Categorical column: training rows of each code, rows needed to trust a code, and embedding width."""

NUMBER_WIDTH = 8
"""Width of a number's embedding."""
DROPOUT_OF_CLASSES = 0.1
"""Default dropout after each hidden layer; numbers have none, see "Tables" in docs/design.md."""


class CategoryEmbedding(nn.Module):
    """Trained vectors (C, W) of a column's categories, shrunk towards 0 where training rows are few.

    As in empirical Bayes, where the mean of few rows is shrunk towards the overall mean: a category with n of the
    `rows` is weighted by n / (n + `trusted`), which is small for a rare one and 0 for an unseen one.
    """

    weight: nn.Parameter
    shares: torch.Tensor

    def __init__(self, rows: Sequence[int], trusted: float, width: int) -> None:
        super().__init__()
        # As in fastai 0.7, wide embeddings start small to keep columns balanced.
        self.weight = nn.Parameter(torch.empty(len(rows), width).uniform_(-2 / (width + 1), 2 / (width + 1)))
        counts = torch.tensor(rows, dtype=torch.float32)
        self.register_buffer("shares", counts / (counts + trusted))

    def vectors(self) -> torch.Tensor:
        """Shrunk vector of each category, (C, W)."""
        return self.weight * self.shares[:, None]


class CategoryEmbeddings(nn.ModuleList):
    """Embeddings of K columns, looked up at once because a call each would cost more than the arithmetic.

    In training a random share (`dropout`) of the codes is treated as unseen.
    """

    first_codes: torch.Tensor
    first_numbers: torch.Tensor
    widths: torch.Tensor
    column_of: torch.Tensor
    place_of: torch.Tensor

    def __init__(self, columns: Sequence[Column], dropout: float) -> None:
        super().__init__(CategoryEmbedding(*column) for column in columns)
        self.dropout = dropout
        widths = torch.tensor([width for _, _, width in columns], dtype=torch.int64)
        sizes = torch.tensor([len(rows) for rows, _, _ in columns], dtype=torch.int64)
        indexes = {
            "widths": widths,
            "first_codes": sizes.cumsum(0) - sizes,
            "first_numbers": (sizes * widths).cumsum(0) - sizes * widths,
            "column_of": torch.repeat_interleave(torch.arange(len(columns)), widths),
            "place_of": torch.cat([torch.arange(int(width)) for width in [*widths, 0]]),
        }
        for name, index in indexes.items():
            self.register_buffer(name, index, persistent=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Concatenated vectors (B, sum of W) of codes (B, K) int64."""
        if not len(self):
            return torch.empty(len(codes), 0, device=codes.device)
        embeddings = cast(list[CategoryEmbedding], list(self))
        shares = torch.cat([embedding.shares for embedding in embeddings])[codes + self.first_codes]
        if self.training and self.dropout:
            shares = shares * (torch.rand_like(shares) >= self.dropout)
        numbers = torch.cat([embedding.weight.flatten() for embedding in embeddings])
        first = (codes * self.widths + self.first_numbers).index_select(1, self.column_of)
        return _looked_up(numbers, first + self.place_of) * shares.index_select(1, self.column_of)


def _looked_up(numbers: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Look up numbers (N,) at places (B, W)."""
    if numbers.is_cuda:  # gradient sums of index_select are nondeterministic on CUDA
        return functional.embedding(places, numbers[:, None])[:, :, 0]
    return numbers.index_select(0, places.flatten()).view(places.shape)  # 10 times faster, bit-identical


class NumberEmbeddings(nn.Module):
    """Vectors (B, M * W) of numbers (B, M), piecewise linear with knots at quantiles of the training rows.

    A number's vector is linear in it, plus a linear function of its piecewise-linear encoding: its progress through
    each of `bins` bins. Bins hold equal shares of the rows, so their edges are quantiles of a normal variable. The
    second term starts at 0.
    """

    edges: torch.Tensor

    def __init__(self, numbers: int, bins: int, width: int) -> None:
        super().__init__()
        shares = torch.linspace(0, 1, bins + 1, dtype=torch.float64).clamp(TAIL, 1 - TAIL)
        self.register_buffer("edges", torch.from_numpy(ndtri(shares.numpy())).float())
        self.slope = nn.Parameter(torch.empty(numbers, width).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(numbers, width).uniform_(-1, 1))
        self.bends = nn.Parameter(torch.zeros(numbers, bins, width))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Embed numbers given as normal scores."""
        lower, upper = self.edges[:-1], self.edges[1:]
        encoded = ((numbers[:, :, None] - lower) / (upper - lower)).clamp(0, 1)
        bent = torch.einsum("bmt,mtw->bmw", encoded, self.bends)
        return (bent + numbers[:, :, None] * self.slope + self.bias).flatten(1)


class SharedDropout(nn.Dropout1d):
    """Dropout of units (B, K, D) shared by all K members; separate masks would take a third of a step's time."""

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Activations (B, K, D)."""
        return super().forward(activations.transpose(1, 2)).transpose(1, 2)


class TableBody(nn.Module):
    """Embeddings, and the hidden layers shared by the members.

    `columns` are the categorical ones; `numbers` is the number of continuous columns; `dropout` follows each layer.
    """

    def __init__(self, columns: Sequence[Column], numbers: int, model: TableModelSpec, dropout: float) -> None:
        super().__init__()
        self.embeddings = CategoryEmbeddings(columns, model.embedding_dropout)
        self.numbers = NumberEmbeddings(numbers, model.bins, NUMBER_WIDTH) if numbers else None
        inputs = sum(width for _, _, width in columns) + numbers * NUMBER_WIDTH
        self.signs = nn.Parameter(torch.randint(0, 2, (model.members, inputs)) * 2.0 - 1)
        layers: list[nn.Module] = []
        for _ in range(model.depth):
            layers += [nn.Linear(inputs, model.width), nn.ReLU(), SharedDropout(dropout)]
            inputs = model.width
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Activations (B, K, D) of the K members, from categories (B, C) int64 and numbers (B, M) float32."""
        categories, numbers = inputs
        parts = [self.embeddings(categories)]
        if self.numbers is not None:
            parts.append(self.numbers(numbers))
        # Apply a member's signs to the first layer's weights, which do not grow with the batch, not to the inputs.
        first = cast(nn.Linear, self.layers[0])
        turned = (self.signs[:, None] * first.weight).flatten(0, 1)
        outputs = functional.linear(torch.cat(parts, dim=1), turned, first.bias.repeat(len(self.signs)))
        activations = outputs.reshape(len(outputs), len(self.signs), -1)
        for layer in islice(self.layers, 1, None):
            activations = layer(activations)
        return activations


class TableHead(nn.Module):
    """An output layer for each of K members: (B, K, C) in training, else their combined output, (B, C).

    Parameters
    ----------
    members, inputs, outputs
        K, D and C.
    scale
        Means and deviations of the targets, which set the scale of the outputs; None for classes.
    """

    means: torch.Tensor
    deviations: torch.Tensor

    def __init__(
        self, members: int, inputs: int, outputs: int, scale: tuple[Sequence[float], Sequence[float]] | None
    ) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, outputs))
        self.classifies = scale is None
        means, deviations = scale or ([0.0] * outputs, [1.0] * outputs)
        self.register_buffer("means", torch.tensor(means, dtype=torch.float32))
        self.register_buffer("deviations", torch.tensor(deviations, dtype=torch.float32))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Values, or logits; combined logits are the logarithm of the members' mean probability."""
        outputs = torch.einsum("bkd,kdc->bkc", activations, self.weight) + self.bias
        outputs = self.means + outputs * self.deviations
        if self.training:
            return outputs
        if self.classifies:
            return torch.logsumexp(outputs.log_softmax(dim=2), dim=1)
        return outputs.mean(dim=1)


def network_of(params: TrainTables, encoder: TableEncoder) -> Network:
    """Build a network for an encoder's columns, seeded by the spec, in groups: embeddings, hidden layers, output."""
    model, target = params.model, encoder.target
    columns: list[Column] = []
    for name, categories in encoder.sizes():
        columns.append((encoder.counts[name], encoder.trusted_rows[name], embedding_width(categories)))
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        usual = 0.0 if target.columns else DROPOUT_OF_CLASSES
        dropout = usual if model.dropout is None else model.dropout
        body = TableBody(columns, len(encoder.continuous), model, dropout)
        scale = (encoder.target_means, encoder.target_deviations) if target.columns else None
        head = TableHead(model.members, model.width, target.outputs, scale)
    names = [name for name, _ in body.named_parameters()]
    early = [name for name in names if name.startswith(("embeddings.", "numbers."))]
    return Network(body, head, [early, [name for name in names if name not in early]], early_blocks=1)


def summarise_table(network: Network, columns: Sequence[str]) -> list[dict[str, object]]:
    """``layer``, ``layer_group``, ``shape`` and ``parameters`` of every layer; `columns` are the categorical ones."""
    embeddings = {f"body.embeddings.{number}.weight": name for number, name in enumerate(columns)}
    early = set(network.block_parameters()[0])
    rows: list[dict[str, object]] = []
    for name, parameter in network.named_parameters():
        group = "early" if name in early else "head" if name.startswith("head.") else "late"
        layer = f"embedding of {embeddings[name]}" if name in embeddings else name
        shape = " x ".join(map(str, parameter.shape))
        rows.append({"layer": layer, "layer_group": group, "shape": shape, "parameters": parameter.numel()})
    return rows
