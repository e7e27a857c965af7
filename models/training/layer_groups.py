"""Layer groups, their learning rates, and freezing."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.training.network import Network


@dataclass(frozen=True)
class LayerGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: tuple[str, ...]


def layer_groups(network: Network, count: int = 3) -> list[LayerGroup]:
    """Divide the network into layer groups, the head last.

    Three groups are the network's default: the early blocks, the late blocks and the head (for a resnet the stem with
    layer1 and layer2, layer3 with layer4, and the head). Any other number spreads the first ``count - 1`` evenly over
    the body's blocks, as fastai 0.7 spreads a longer list of lrs.

    Raises
    ------
    UserError
        If the body has fewer blocks than ``count - 1``, or `count` is below 2.
    """
    blocks = network.block_parameters()
    parts = count - 1
    if not 1 <= parts <= len(blocks):
        raise UserError(
            f"{count} learning rates need {parts} parts of the body, but it has {len(blocks)} blocks; "
            f"give 2 to {len(blocks) + 1} lrs in lrs"
        )
    if count == 3:
        borders, names = [0, network.early_blocks, len(blocks)], ["early", "late"]
    else:
        borders = [round(part * len(blocks) / parts) for part in range(parts + 1)]
        names = ["body"] if parts == 1 else [f"body-{part}" for part in range(parts)]
    groups = [
        LayerGroup(name, tuple(parameter for block in blocks[start:end] for parameter in block))
        for name, start, end in zip(names, borders, borders[1:], strict=False)
    ]
    return [*groups, LayerGroup("head", tuple(network.head_parameters()))]


def block_groups(network: Network) -> list[LayerGroup]:
    """Make one layer group per block of the body in forward order, and one for the head."""
    blocks = [LayerGroup(f"block-{place}", tuple(names)) for place, names in enumerate(network.block_parameters())]
    return [*blocks, LayerGroup("head", tuple(network.head_parameters()))]


def group_lrs(lr: float, ratio: float, count: int, early_ratio: float | None = None) -> list[float]:
    """Differential learning rates: group i of n gets ``lr / ratio ** (n - 1 - i)``, so the head gets `lr`.

    `early_ratio` replaces `ratio` between the first two groups.
    """
    lrs = [lr / ratio ** (count - 1 - group) for group in range(count)]
    return lrs if early_ratio is None else [lrs[1] / early_ratio, *lrs[1:]]


def trained_groups(groups: Sequence[LayerGroup], train: str) -> list[LayerGroup]:
    """Select the groups trained by ``head``, ``late`` (with the late half of the body) or ``all``."""
    if train == "all":
        return list(groups)
    return list(groups[-1:] if train == "head" else groups[len(groups) // 2 :])


def freeze_all_but(network: Network, groups: Sequence[LayerGroup]) -> None:
    """Let exactly the parameters of `groups` require gradients."""
    trained = {name for group in groups for name in group.parameters}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)


def set_modes(network: Network) -> None:
    """Set trainable modules to training mode and frozen ones to evaluation mode.

    A module without parameters (dropout, stochastic depth) follows the nearest parent. Frozen batch norms must not
    update their statistics, or precomputed activations would differ from the network's.
    """

    def visit(module: nn.Module, parent_trains: bool) -> None:
        needs = [parameter.requires_grad for parameter in module.parameters()]
        module.training = any(needs) if needs else parent_trains
        for child in module.children():
            visit(child, module.training)

    visit(network, True)


def freeze_batchnorm(body: nn.Module) -> None:
    """Freeze weights and statistics of the body's batch norms; call after `freeze_all_but`."""
    for module in body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
