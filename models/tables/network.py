"""The network of a table: embeddings of categories, numbers beside them, hidden layers.

After Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016, and fastai 0.7 (``MixedInputModel``).
"""

from collections.abc import Sequence

import torch
from torch import nn

from unfreeze.models.specs.tables import TableModelSpec, TrainTables
from unfreeze.models.tables.encoding import TableEncoder, embedding_width
from unfreeze.models.training.network import Network


class TableBody(nn.Module):
    """Embeddings and hidden layers.

    `sizes` are (categories with the missing one, width) of every categorical column; `numbers` is the number of
    continuous columns.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], numbers: int, model: TableModelSpec) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(categories, width) for categories, width in sizes)
        for embedding, (_, width) in zip(self.embeddings, sizes, strict=True):
            # As fastai 0.7: wide embeddings begin small, so that no column drowns the others.
            nn.init.uniform_(embedding.get_parameter("weight"), -2 / (width + 1), 2 / (width + 1))
        self.embedding_dropout = nn.Dropout(model.embedding_dropout)
        self.continuous_norm = nn.BatchNorm1d(numbers) if numbers else None
        inputs = sum(width for _, width in sizes) + numbers
        layers: list[nn.Module] = []
        for units, dropout in zip(model.layers, model.dropout, strict=True):
            linear = nn.Linear(inputs, units)
            nn.init.kaiming_normal_(linear.weight)
            layers += [linear, nn.ReLU(), nn.BatchNorm1d(units), nn.Dropout(dropout)]
            inputs = units
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Activations (B, D) of categories (B, K) int64 and standardised numbers (B, M) float32."""
        categories, numbers = inputs
        parts = [embedding(categories[:, column]) for column, embedding in enumerate(self.embeddings)]
        joined = [self.embedding_dropout(torch.cat(parts, dim=1))] if parts else []
        if self.continuous_norm is not None:
            joined.append(self.continuous_norm(numbers))
        activations: torch.Tensor = self.layers(torch.cat(joined, dim=1))
        return activations


class TableHead(nn.Module):
    """The last layer; with `y_range`, the lowest and highest output, a sigmoid squashes its outputs into it."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, inputs: int, outputs: int, y_range: tuple[float, float] | None) -> None:
        super().__init__()
        self.output = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(self.output.weight)
        self.squashes = y_range is not None
        low, high = y_range or (0.0, 1.0)
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    @torch.no_grad()
    def start_at(self, means: torch.Tensor) -> None:
        """Begin with predictions close to the targets' means (C,): the first steps need not find the scale."""
        share = (means - self.low) / (self.high - self.low)
        self.output.bias.copy_(torch.logit(share, eps=1e-3) if self.squashes else means)
        self.output.weight.mul_(0.05)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Logits or values (B, C)."""
        outputs: torch.Tensor = self.output(activations)
        return self.low + torch.sigmoid(outputs) * (self.high - self.low) if self.squashes else outputs


def network_of(params: TrainTables, encoder: TableEncoder) -> Network:
    """A new network for an encoder's columns, seeded by the spec, in groups: embeddings, hidden layers, output."""
    model, target = params.model, encoder.target
    sizes = [
        (categories, model.embedding_sizes.get(name, embedding_width(categories, model.embedding_rule)))
        for name, categories in encoder.sizes()
    ]
    with torch.random.fork_rng():
        torch.manual_seed(params.seed)
        body = TableBody(sizes, len(encoder.continuous), model)
        y_range = encoder.target_range() if target.columns and model.y_range else None
        head = TableHead(model.layers[-1], target.outputs, y_range)
    names = [name for name, _ in body.named_parameters()]  # those of the embeddings come first
    return Network(body, head, [names[: len(sizes) or 1], names[len(sizes) or 1 :]], early_blocks=1)


def summarise_table(network: Network, columns: Sequence[str]) -> list[dict[str, object]]:
    """``layer``, ``layer_group``, ``shape`` and ``parameters`` of every layer; `columns` are the categorical ones."""
    embeddings = {f"body.embeddings.{number}.weight": name for number, name in enumerate(columns)}
    rows: list[dict[str, object]] = []
    for name, parameter in network.named_parameters():
        group = "early" if name in embeddings else "head" if name.startswith("head.") else "late"
        layer = f"embedding of {embeddings[name]}" if name in embeddings else name
        shape = " x ".join(map(str, parameter.shape))
        rows.append({"layer": layer, "layer_group": group, "shape": shape, "parameters": parameter.numel()})
    return rows
