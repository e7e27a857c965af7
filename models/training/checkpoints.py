"""Checkpoints that resume a training bit for bit, without pickled code.

A checkpoint is one safetensors file. Its header holds JSON with the position, the layer groups and the parameters that
require gradients. Its tensors are the weights and buffers (``network/``), the optimizer's state (``optimizer/``), the
random-number states (``rng/``), with patience the stage's best weights (``best/``), with `OptimizerSpec.ema` the
averaged weights (``average/``), and in a stage that trains the body the head from before (``head/``).

Unchanged initial weights and buffers of the body are left out, as the spec and the pretrained weights restore them.
Their checksums in the header reveal changed pretrained weights; a checksum of the whole content reveals damage.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import flush_to_disk
from unfreeze.models.training.learner import Learner, Progress
from unfreeze.models.training.network import State, checksum

FORMAT_VERSION = 3
_PROGRESS = ("stage", "epoch", "step", "finished", "best_loss", "kept_loss", "cycles_since_best", "stopped")


class DamagedCheckpointError(UserError):
    """The file is damaged, or not a checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """Snapshot of a learner's state; its tensors are copies on the CPU."""

    tensors: dict[str, torch.Tensor]
    position: dict[str, Any]

    @property
    def stage(self) -> int:
        """Position of the current stage, from 0."""
        return int(self.position["stage"])

    @property
    def finished(self) -> bool:
        """Whether that stage is finished."""
        return bool(self.position["finished"])

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors below ``prefix/``, named without it."""
        start = f"{prefix}/"
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}

    def whole(self, prefix: str, initial: State) -> dict[str, torch.Tensor]:
        """Return the weights ``network/`` or ``best/``, with those left out filled in from `initial`.

        Raises
        ------
        UserError
            If the initial weights changed since the checkpoint was captured.
        """
        held, left_out = self.part(prefix), self.position["initial"][prefix]
        for name, known in left_out.items():
            if name not in initial or checksum(initial[name]) != known:
                raise UserError(
                    f"the body's initial weights, such as {name}, are not those that the training began with: the file "
                    "of pretrained weights changed; put the one of before back, or start a new training"
                )
        return {**held, **{name: initial[name].detach().cpu().clone() for name in left_out}}


def capture(learner: Learner) -> Checkpoint:
    """Copy everything that training changes to the CPU."""
    progress = learner.progress
    tensors = {f"network/{name}": tensor for name, tensor in learner.network.state_dict().items()}
    names: dict[torch.Tensor, str] = {tensor: name for name, tensor in learner.network.named_parameters()}
    for parameter, state in learner.optimizer.state.items():
        for key, value in state.items():
            if value is not None:
                tensors[f"optimizer/{names[parameter]}/{key}"] = torch.as_tensor(value)
    tensors |= {f"best/{name}": tensor for name, tensor in (progress.best or {}).items()}
    averages = learner.average
    tensors |= {f"average/{name}": tensor for name, tensor in (averages.values if averages else {}).items()}
    tensors |= {f"head/{name}": tensor for name, tensor in (learner.head_alone or {}).items()}
    tensors |= {f"rng/{name}": state for name, state in random_states(learner).items()}
    if progress.order is not None:
        tensors["epoch/order"] = progress.order
        if progress.batch:
            tensors["epoch/losses"] = progress.losses[: progress.batch]
    position = {
        "format": FORMAT_VERSION,
        **{name: getattr(progress, name) for name in _PROGRESS},
        "averaged": averages.updates if averages else 0,
        "initial": {"network": {}, "best": {}},
        "groups": [{"name": group.name, "parameters": list(group.parameters)} for group in learner.groups],
        "base_lrs": learner.base_lrs,
        "requires_grad": [name for name, parameter in learner.network.named_parameters() if parameter.requires_grad],
    }
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return Checkpoint(copies, position)


def without_initial(checkpoint: Checkpoint, initial: Mapping[str, str]) -> Checkpoint:
    """Leave out weights and buffers that still match the initial checksums, by name in `initial`."""
    left_out = {
        prefix: {
            name: initial[name]
            for name, tensor in checkpoint.part(prefix).items()
            if name in initial and checksum(tensor) == initial[name]
        }
        for prefix in ("network", "best")
    }
    gone = {f"{prefix}/{name}" for prefix, names in left_out.items() for name in names}
    held = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in gone}
    return Checkpoint(held, {**checkpoint.position, "initial": left_out})


def restore(learner: Learner, checkpoint: Checkpoint) -> None:
    """Restore a learner, prepared for the checkpoint's stage, to where the checkpoint was captured.

    Raises
    ------
    ValueError
        If the learner's layer groups differ from the checkpoint's.
    UserError
        See `Checkpoint.whole`; weights left out of the checkpoint must be the initial ones in the learner.
    """
    layout = [(group.name, list(group.parameters)) for group in learner.groups]
    if layout != [(group["name"], group["parameters"]) for group in checkpoint.position["groups"]]:
        raise ValueError("the checkpoint's layer groups are not those of the stage that the learner is prepared for")
    best = checkpoint.whole("best", learner.network.state_dict())
    restore_between_stages(learner, checkpoint)
    requires_grad = set(checkpoint.position["requires_grad"])
    parameters = dict(learner.network.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in requires_grad)
    learner.base_lrs = list(checkpoint.position["base_lrs"])
    learner.optimizer.state.clear()
    for path, value in checkpoint.part("optimizer").items():
        name, key = path.rsplit("/", 1)
        parameter = parameters[name]
        # Optimizers keep step counters on the CPU; everything else is on its parameter's device.
        value = value.clone() if key == "step" else torch.empty_like(parameter).copy_(value)
        learner.optimizer.state[parameter][key] = value
    if learner.average is not None:
        learner.average.restore(checkpoint.part("average"), checkpoint.position["averaged"])
    losses = checkpoint.tensors.get("epoch/losses", torch.empty(0)).to(learner.device)
    learner.progress = Progress(
        **{name: checkpoint.position[name] for name in _PROGRESS},
        order=checkpoint.tensors.get("epoch/order"),
        batch=len(losses),
        losses=losses,
        best=best or None,
    )


def restore_between_stages(learner: Learner, checkpoint: Checkpoint) -> None:
    """Restore the state passed between stages: weights, random states and the step count."""
    prefix = "best" if checkpoint.finished and checkpoint.part("best") else "network"
    learner.network.load_state_dict(checkpoint.whole(prefix, learner.network.state_dict()))
    set_random_states(learner, checkpoint.part("rng"))
    learner.head_alone = checkpoint.part("head") or None
    learner.progress = Progress(stage=checkpoint.stage, step=checkpoint.position["step"])


def random_states(learner: Learner) -> dict[str, torch.Tensor]:
    """States of all random-number generators used in training, uint8."""
    states = {"torch": torch.get_rng_state(), "learner": learner.generator.get_state()}
    if learner.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(learner.device)
    return states


def set_random_states(learner: Learner, states: dict[str, torch.Tensor]) -> None:
    """Restore the result of `random_states`; a CUDA state is ignored without a CUDA device."""
    torch.set_rng_state(states["torch"])
    learner.generator.set_state(states["learner"])
    if learner.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], learner.device)


def save_checkpoint(learner: Learner, path: Path) -> None:
    """Write a checkpoint atomically and durably."""
    checkpoint = without_initial(capture(learner), learner.initial_body)
    temporary, position = path.with_name(path.name + ".partial"), json.dumps(checkpoint.position)
    metadata = {"position": position, "checksum": _checksum(position, checkpoint.tensors)}
    save_file(checkpoint.tensors, temporary, metadata=metadata)
    flush_to_disk(temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    DamagedCheckpointError
        If the file is damaged, or not a checkpoint.
    UserError
        If this release does not know its format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            position = json.loads(metadata["position"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found, written = position["format"], metadata.get("checksum")
            is_known = found == FORMAT_VERSION or written is not None  # other releases may omit it
            if is_known and written != _checksum(metadata["position"], tensors):
                raise ValueError("its content does not match its checksum")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(f"{path}: not a checkpoint, or damaged ({error})") from error
    if found != FORMAT_VERSION:
        raise UserError(
            f"{path}: checkpoint format {found}, but this release reads {FORMAT_VERSION}; "
            "resume with the release that wrote it"
        )
    return Checkpoint(tensors, position)


def _checksum(position: str, tensors: State) -> str:
    """XXH3 (128 bits, hexadecimal) of a checkpoint's content."""
    lines = [position, *(f"{name} {checksum(tensors[name])}" for name in sorted(tensors))]
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())
