"""Learner: a network, its optimizer, its random states and its progress."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unfreeze.models.errors import choose
from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.settings import OptimizerSpec, Stage
from unfreeze.models.targets import SingleLabel, Target
from unfreeze.models.targets.losses import Loss
from unfreeze.models.training import ranks
from unfreeze.models.training.batches import Batches, Inputs, in_order, put_together, split_inputs, split_rows
from unfreeze.models.training.network import (
    LayerGroup,
    Network,
    State,
    WeightAverage,
    block_groups,
    checksum,
    freeze_all_but,
    freeze_batchnorm,
    group_lrs,
    layer_groups,
    set_modes,
    trained_groups,
)
from unfreeze.models.training.precision import Precision
from unfreeze.models.training.suggestions import LrPrior

Result = TypeVar("Result")


@dataclass
class Progress:
    """Position in a training; with weights, optimizer and RNG enough to continue bit for bit."""

    stage: int = 0
    epoch: int = 0
    """Completed epochs of the stage."""
    step: int = 0
    """Batches since the training began."""
    finished: bool = False
    """Whether the stage is finished."""
    order: torch.Tensor | None = None
    """Row order of the current epoch, (N,) int64."""
    batch: int = 0
    """Completed batches of that epoch."""
    losses: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """Their losses, the first `batch` of (batches of the epoch,) float32 on the training device."""
    best_loss: float = float("inf")
    """Lowest validation loss before this stage or at its cycle ends."""
    best: dict[str, torch.Tensor] | None = None
    """Weights and buffers to restore at the stage's end, on the CPU."""
    kept_loss: float = float("inf")
    """Its validation loss."""
    cycles_since_best: int = 0
    stopped: str = ""
    """Why the stage ended."""


class Learner:
    """Network, optimizer and random states: everything that the training loop changes.

    Parameters
    ----------
    network
        Body and head; moved to `device`, channels last.
    settings
        Optimizer settings.
    loss
        Training loss.
    device, precision
        Device and number formats.
    seed
        Seeds row order, views and dropout.
    metrics
        Computed after every epoch on the whole validation set.
    target
        Turns the network's outputs into predictions for them.
    """

    def __init__(
        self,
        network: Network,
        settings: OptimizerSpec,
        loss: Loss,
        device: torch.device,
        precision: Precision,
        seed: int,
        metrics: dict[str, Metric],
        target: Target | None = None,
    ) -> None:
        self.initial_body = {
            name: checksum(tensor) for name, tensor in network.state_dict().items() if name.startswith("body.")
        }
        """Checksums of the body's initial weights and buffers, which checkpoints leave out."""
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.settings, self.loss, self.device, self.precision, self.metrics = settings, loss, device, precision, metrics
        self.target = target or SingleLabel()
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.progress = Progress()
        self.head_alone: dict[str, torch.Tensor] | None = None
        """The head's weights and buffers before the body became trainable, on the CPU."""
        self.average: WeightAverage | None = None
        self.groups: list[LayerGroup] = []
        self.base_lrs: list[float] = []

    def prepare(self, stage: Stage, position: int, lr: float) -> None:
        """Begin a stage: freeze and unfreeze, reset the optimizer, and set the stage's lrs for a head lr of `lr`."""
        if stage.layer_decay is not None:
            groups = block_groups(self.network)
            lrs = group_lrs(lr, 1 / stage.layer_decay, len(groups))
        else:
            groups = layer_groups(self.network, count=len(stage.lrs) if stage.lrs else 3)
            lrs = list(stage.lrs) if stage.lrs else group_lrs(lr, stage.ratio, len(groups), stage.early_ratio)
        self.groups = trained_groups(groups, stage.train)
        self.base_lrs = lrs[-len(self.groups) :]
        freeze_all_but(self.network, self.groups)
        if stage.freeze_batchnorm:
            freeze_batchnorm(self.network.body)
        self.optimizer = build_optimizer(self.network, self.groups, self.settings)
        self._wrapped_loss = ranks.with_summed_gradients(self.network, self._loss)
        self.average = WeightAverage(self.network, self.settings.ema) if self.settings.ema is not None else None
        self.progress = Progress(stage=position, step=self.progress.step)

    def set_lrs(self, factor: float) -> dict[str, float]:
        """Set every group's lr to `factor` times its base lr; return the lrs by group name."""
        lrs = {group.name: lr * factor for group, lr in zip(self.groups, self.base_lrs, strict=True)}
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lrs[parameters["layer_group"]]
        return lrs

    def train_batch(
        self, inputs: Inputs, targets: torch.Tensor, train: Batches, rows: int | None = None
    ) -> torch.Tensor:
        """Take one optimizer step on a batch gathered from `train`; return its loss, a detached scalar.

        An ensemble network outputs (B, K, C) in training; its loss is the mean over its K members. `rows` is the number
        that all ranks train on; default: these alone.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        parts = split_rows(inputs, targets, self.settings.accumulate)
        for number, (part, part_targets) in enumerate(parts, 1):
            share = len(part_targets) / (rows or len(targets))
            with nullcontext() if number == len(parts) else self._without_sum():
                loss = self._wrapped_loss(part, part_targets, train) * share
                (loss * ranks.count()).backward()  # the wrapper averages over the ranks
            total += loss.detach()
        if self.settings.clip_norm is not None:
            trainable = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trainable, self.settings.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return ranks.add_up(total)

    def _without_sum(self) -> AbstractContextManager[None]:
        """Add up this rank's gradients only, until the batch's last part."""
        wrapped = self._wrapped_loss
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def _loss(self, inputs: Inputs, targets: torch.Tensor, train: Batches) -> torch.Tensor:
        with self.precision.autocast(training=True):
            if train.precomputed:
                logits = self.network.head(inputs)
            elif self.network.body_is_trainable():
                logits = self.network(inputs)
            else:
                with torch.no_grad(), self.precision.autocast(training=False):
                    parts = [self.network.body(part) for part in split_inputs(inputs, train.forward_size)]
                logits = self.network.head(torch.cat(parts))
            if members := logits.ndim == 3 and logits.shape[1]:  # (B, K, C): each member learns from every row
                logits, targets = logits.flatten(0, 1), targets.repeat_interleave(members, dim=0)
            return self.loss(logits, targets)

    def averaged(self) -> AbstractContextManager[None]:
        """Temporarily swap in the averaged weights, if `OptimizerSpec.ema` is set."""
        return nullcontext() if self.average is None else self.average.applied()

    def train_mode(self) -> None:
        """Set trainable modules to training mode and frozen ones to evaluation mode."""
        set_modes(self.network)

    @torch.no_grad()
    def predict(self, batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict all rows: logits (N, C) float32 and targets (N,) on the CPU, in the data set's order."""
        self.network.eval()
        forward = self.network.head if batches.precomputed else self.network
        with self.precision.autocast(training=False):
            rows = ranks.rows_to_predict(len(batches))
            parts = ((forward(inputs).float(), targets) for inputs, targets in in_order(batches, rows))
            logits, targets = put_together(parts, len(rows))
        return ranks.gathered(logits, len(batches)), ranks.gathered(targets, len(batches))

    def validate(self, batches: Batches) -> dict[str, float]:
        """Compute the validation ``loss`` and the metrics over all rows at once; see `Target`."""
        outputs, targets = self.predict(batches)
        predictions, actual = self.target.predictions(outputs), self.target.actual(targets)
        values = {name: metric(predictions, actual) for name, metric in self.metrics.items()}
        return {"loss": float(self.target.score(outputs, targets)), **values}

    def of_members(
        self, states: Sequence[State], predict: Callable[[], Result], head: nn.Module | None = None
    ) -> list[Result]:
        """Predict with each of several sets of weights; the learner's own are restored.

        Parameters
        ----------
        states
            Weights and buffers by name.
        predict
            Predicts with the learner's network.
        head
            Temporary replacement for the network's head.
        """
        own, own_head = self.state(), self.network.head
        results = []
        try:
            self.network.head = own_head if head is None else head.to(self.device)
            for state in states:
                self.network.load_state_dict(state)
                results.append(predict())
        finally:
            self.network.head = own_head
            self.network.load_state_dict(own)
        return results

    def state(self) -> dict[str, torch.Tensor]:
        """Copy the network's weights and buffers, on their device."""
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}


def adamw(groups: list[dict[str, Any]], settings: OptimizerSpec) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2017), with decoupled weight decay."""
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def sgd(groups: list[dict[str, Any]], settings: OptimizerSpec) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True)


OPTIMIZERS = {"adamw": adamw, "sgd": sgd}
"""Name in `optimizer.name` -> factory from parameter groups and settings."""
LR_PRIORS = {"adamw": LrPrior(2e-3, 0.35), "sgd": LrPrior(5e-2, 0.5)}
"""Name -> usual lr for new layers; an optimizer without a prior takes its lr from the curves alone."""


def build_optimizer(network: Network, groups: list[LayerGroup], settings: OptimizerSpec) -> torch.optim.Optimizer:
    """Build an optimizer with two parameter groups per layer group: with weight decay, and without (norms, biases)."""
    parameters = dict(network.named_parameters())
    param_groups = []
    for group in groups:
        trainable = [parameters[name] for name in group.parameters if parameters[name].requires_grad]
        for decays in (True, False):
            chosen = [parameter for parameter in trainable if (parameter.ndim > 1) == decays]
            if chosen:
                decay = settings.weight_decay if decays else 0.0
                param_groups.append({"params": chosen, "layer_group": group.name, "weight_decay": decay})
    return choose(OPTIMIZERS, settings.name, "optimizer.name")(param_groups, settings)
