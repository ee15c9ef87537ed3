"""The only training loop. A method is an objective: (model, batch, step) -> (loss, named metrics)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.runtime import pick_device, seed_everything
from sutura.train.checkpointing import Checkpoints, Position, checkpoints_in
from sutura.train.modes import set_train_mode
from sutura.train.optim import Group, OptimConfig, build_optimizer, set_lr, trainable_parameters
from sutura.train.record import LossSummary, Record

if TYPE_CHECKING:
    from accelerate import Accelerator

#: (model, batch, step) → (loss, named metrics); which model and which batch is between a method and its feed.
Objective = Callable[[Any, Any, int], tuple[Tensor, Mapping[str, "float | Tensor"]]]

_OWN = ("step", "loss", "lr", "grad_norm", "seconds", "evaluation")


class Feed(Protocol):
    """Where batches come from."""

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        ...

    def micro_batches(self, step: int) -> Sequence[Any]:
        """All micro-batches of one optimizer step: a pure function of the feed's own seed and the step."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What a run leaves behind besides the trained model."""

    steps: int
    history: Path | None
    seconds: float
    bad_batches: int
    loss: LossSummary


def fit(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    optim: OptimConfig,
    *,
    seed: int,
    directory: Path | None,
    groups: Callable[[nn.Module], Sequence[Group]] | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    evaluate: Callable[[Any, int], dict[str, Any]] | None = None,
    evaluate_every: int = 0,
    checkpoint_every: int = 0,
    resume: bool = False,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    device: str | torch.device = "cpu",
    config_hash: str = "",
    window: int = 50,
) -> FitResult:
    """Train the weights that ask for gradients; every other weight keeps its bits, and its module eval mode.

    The feed, the objective and `after_step` receive the index of the step, from 0. Metrics, `on_step`,
    `evaluate` and checkpoints speak of steps done, from 1. All global randomness is seeded from (seed, step)
    before each step, which is why a resumed run repeats the bits of an uninterrupted one on the CPU.

    Args:
        objective: loss of one micro-batch, scaled so that the losses of a step's micro-batches add up to the
            step's loss; metrics are averaged over the micro-batches.
        directory: receives metrics.jsonl, bad_batches.jsonl and checkpoints; None keeps nothing.
        groups: parameter groups; without it one group holds everything.
        after_step: called when weights have moved (a moving average); must keep what it changes in the model.
        evaluate: called with the model in eval mode and no gradients every `evaluate_every` steps and at the
            end; its values join the step's metrics.
        checkpoint_every: steps between checkpoints, the last step included; 0 writes none.
        resume: continue from the newest checkpoint in `directory`.
        config_hash: names the whole run; a checkpoint of another one is refused.
        window: steps over which the final loss is smoothed.

    Raises:
        UserError: nothing trains, a trainable weight is not float32, a checkpoint is missing, damaged or of
            another run, or more than `optim.max_bad_batches` steps had a loss or gradient that is not finite.
    """
    began = time.perf_counter()
    trainable = trainable_parameters(model, optim.trained_dtype)
    if directory is None and (resume or checkpoint_every):
        raise UserError("Checkpoints and resume need a directory; give the run one.")
    accelerator = _accelerator(pick_device(str(device)), optim.precision)
    model.to(accelerator.device)
    optimizer = build_optimizer(trainable, optim, groups(model) if groups else None)

    checkpoints, position = None, Position()
    if directory is not None and (resume or checkpoint_every):
        identity = {"seed": seed, "steps": feed.steps, "optim": optim.hash(), "config": config_hash}
        checkpoints = Checkpoints(
            directory, model, trainable, optimizer, identity, watch_frozen=after_step is not None
        )
    if checkpoints is not None and resume:
        position = checkpoints.restore()
    elif directory is not None and (old := checkpoints_in(directory)):
        raise UserError(
            f"{directory} holds {old[-1].name} of an earlier run: resume it, or choose another place."
        )
    record = Record(directory, position, optim.max_bad_batches, resume)

    optimizer.zero_grad(set_to_none=True)
    set_train_mode(model)
    for step in range(position.step, feed.steps):
        done, last = step + 1, step + 1 == feed.steps
        lr = set_lr(optimizer, optim, step, feed.steps)
        seed_everything(seed, "step", step)
        batches = feed.micro_batches(step)
        row = _backward(model, objective, batches, step, accelerator, list(trainable.values()), optim.clip)
        if math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]):
            optimizer.step()
            if after_step is not None:
                after_step(model, step)
        else:
            record.bad(done, row, batches)
        optimizer.zero_grad(set_to_none=True)

        if evaluate is not None and ((evaluate_every and done % evaluate_every == 0) or last):
            model.eval()
            with torch.no_grad():
                row["evaluation"] = evaluate(model, done)
            set_train_mode(model)
        seconds = position.seconds + time.perf_counter() - began
        row = record.step(done, {**row, "lr": lr, "seconds": round(seconds, 4)})
        if checkpoints is not None and checkpoint_every and (done % checkpoint_every == 0 or last):
            checkpoints.save(Position(done, seconds, record.bad_batches))
        if on_step is not None:
            on_step(done, row)

    model.eval()
    seconds = position.seconds + time.perf_counter() - began
    return FitResult(feed.steps, record.history, seconds, record.bad_batches, record.summary(window))


def _backward(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
    step: int,
    accelerator: Accelerator,
    parameters: list[nn.Parameter],
    clip: float | None,
) -> dict[str, Any]:
    """Gradients of one step, clipped; the device is waited for once, when all values are read together."""
    from accelerate.utils import send_to_device

    if not batches:
        raise UserError(f"The feed gave no batch for step {step}; its number of steps is too large.")
    losses: list[Tensor] = []
    metrics: dict[str, list[Any]] = {}
    for batch in batches:
        with accelerator.autocast():
            loss, values = objective(model, send_to_device(batch, accelerator.device), step)
        accelerator.backward(loss)
        losses.append(loss.detach().float())
        for name, value in values.items():
            metrics.setdefault(name, []).append(
                value.detach().float() if isinstance(value, Tensor) else value
            )
    if taken := metrics.keys() & set(_OWN):
        raise UserError(f"The objective names a metric {sorted(taken)[0]!r}, which the loop writes itself.")
    norm = accelerator.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    means = {"loss": torch.stack(losses).sum(), "grad_norm": norm}
    means |= {name: sum(values) / len(values) for name, values in metrics.items()}
    on_device = {name: value for name, value in means.items() if isinstance(value, Tensor)}
    read = torch.stack([value.float().reshape(()) for value in on_device.values()]).tolist()
    return {**means, **dict(zip(on_device, read, strict=True))}


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    """Accelerate for one device and precision.

    Accelerate keeps both in one state per process and refuses to change it; a grid trains many cells in a
    process, so the state is cleared here, as transformers' TrainingArguments does.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise UserError("Training in several processes is not built yet; start one process.")
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "bf16" if precision == "bfloat16" else "no"
    try:
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    except ValueError as error:
        raise UserError(f"Precision {precision} cannot be used on {device}: {error}") from None
    if accelerator.device.type != device.type:
        raise UserError(
            f"Accelerate chose {accelerator.device}, asked for was {device}; see ACCELERATE_* variables."
        )
    return accelerator
