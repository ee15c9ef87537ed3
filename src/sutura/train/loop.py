"""The only training loop. A method is an objective: (model, batch, step) -> (loss, named metrics)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.processes import Processes, here
from sutura.core.runtime import pick_device, seed_everything
from sutura.train.checkpointing import Checkpoints, Position, checkpoints_in
from sutura.train.micro_batch import check_alone, until_it_fits
from sutura.train.modes import set_train_mode
from sutura.train.optim import Group, OptimConfig, build_optimizer, set_lr, trainable_parameters
from sutura.train.record import LossSummary, Record
from sutura.train.sharing import check_start, check_team, is_sharded, join_rows, share, sum_gradients

if TYPE_CHECKING:
    from accelerate import Accelerator

#: (model, batch, step) → (loss, named metrics); which model and which batch is between a method and its feed.
Objective = Callable[[Any, Any, int], tuple[Tensor, Mapping[str, "float | Tensor"]]]

#: (model, all micro-batches of a step on the device, step, accelerator) → (loss, named metrics), gradients left behind.
#: `accelerator.autocast()` is the run's precision, `accelerator.backward(loss)` the one way to call backward.
WholeStep = Callable[[Any, Sequence[Any], int, "Accelerator"], tuple[Tensor, Mapping[str, "float | Tensor"]]]

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
    whole_step: WholeStep | None = None,
    before_step: Callable[[nn.Module, int], None] | None = None,
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

    In several processes (`accelerate launch`, `torchrun`) each step's micro-batches are shared out by index, and
    losses and gradients are summed over all, so that without dropout the run is the one of a single process but
    for rounding. The first process alone writes files; `on_step` and `evaluate` are called in each.

    Args:
        objective: loss of one micro-batch, scaled so that the losses of a step's micro-batches add up to the
            step's loss; metrics are averaged over the micro-batches, by their `share` where they have one.
        directory: receives metrics.jsonl, bad_batches.jsonl and checkpoints; None keeps nothing.
        groups: parameter groups; without it one group holds everything.
        whole_step: forward and backward over all micro-batches of a step, in place of the objective on each: for a
            loss that compares the micro-batches with each other. One process only.
        before_step: called before a step's forward. It may switch off and on, for a phase of the run, which of the
            weights that train ask for a gradient: the optimizer leaves a weight without one as it is.
        after_step: called when weights have moved (a moving average); must keep what it changes in the model.
        evaluate: called with the model in eval mode and no gradients every `evaluate_every` steps and at the
            end; its values join the step's metrics.
        checkpoint_every: steps between checkpoints, the last step included; 0 writes none.
        resume: continue from the newest checkpoint in `directory`.
        config_hash: names the whole run; a checkpoint of another one is refused.
        window: steps over which the final loss is smoothed.

    Raises:
        UserError: nothing trains, a trainable weight is not float32, a checkpoint is missing, damaged or of
            another run, more than `optim.max_bad_batches` steps had a loss or gradient that is not finite, or
            the processes of a run cannot share its steps.
    """
    began, team = time.perf_counter(), here()
    trainable = trainable_parameters(model, optim.trained_dtype)
    if getattr(feed, "adapts", False):
        check_alone(team)
    if team.several and whole_step is not None:
        raise UserError(
            f"A step whose micro-batches are compared with each other cannot be shared out over {team.count} "
            "processes; start one process."
        )
    if directory is None and (resume or checkpoint_every):
        raise UserError("Checkpoints and resume need a directory; give the run one.")
    accelerator = _accelerator(pick_device(str(device)), optim.precision)
    model.to(accelerator.device)
    optimizer = build_optimizer(trainable, optim, groups(model) if groups else None)

    checkpoints, position, sharded = None, Position(), team.several and is_sharded(model)
    if directory is not None and (resume or checkpoint_every):
        identity = {"seed": seed, "steps": feed.steps, "optim": optim.hash(), "config": config_hash}
        checkpoints = Checkpoints(
            directory, model, trainable, optimizer, identity, watch_frozen=after_step is not None, team=team
        )
    if checkpoints is not None and resume:
        position = checkpoints.restore()
    elif directory is not None and (old := checkpoints_in(directory)):
        raise UserError(
            f"{directory} holds {old[-1].name} of an earlier run: resume it, or choose another place."
        )
    record = Record(directory, position, optim.max_bad_batches, resume, writes=team.first)

    optimizer.zero_grad(set_to_none=True)
    set_train_mode(model)
    check_team(model, objective, team, moves_frozen=after_step is not None, sharded=sharded)
    check_start(trainable, [position.step, feed.steps, seed, config_hash], team)
    weights = list(trainable.values())

    def draw(step: int) -> None:
        # The first process draws what a single one would; the others draw dropout masks of their own.
        seed_everything(seed, "step", step, *(() if team.first else ("process", team.rank)))

    for step in range(position.step, feed.steps):
        done, last = step + 1, step + 1 == feed.steps
        lr = set_lr(optimizer, optim, step, feed.steps)
        draw(step)
        if before_step is not None:
            before_step(model, step)

        def run(batches: Sequence[Any], step: int = step) -> dict[str, Any]:
            return _backward(
                model, objective, batches, step, accelerator, weights, optim.clip, team, sharded, whole_step
            )

        def forget(step: int = step) -> None:
            optimizer.zero_grad(set_to_none=True)
            draw(step)

        row, batches = until_it_fits(feed, step, run, forget)
        if step == position.step and len(batches) < team.count:
            say(
                f"{len(batches)} micro-batches a step for {team.count} processes: lower the micro-batch size."
            )
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
    team: Processes,
    sharded: bool,
    whole_step: WholeStep | None = None,
) -> dict[str, Any]:
    """Gradients of one step, clipped; the device is waited for once, when all values are read together."""
    from accelerate.utils import send_to_device

    if not len(batches):
        raise UserError(f"The feed gave no batch for step {step}; its number of steps is too large.")
    losses: list[Tensor] = []
    metrics: dict[str, list[Any]] = {}
    weights: dict[str, list[float]] = {}
    if whole_step is not None:
        every = [send_to_device(batch, accelerator.device) for batch in batches]
        loss, values = whole_step(model, every, step, accelerator)
        losses.append(loss.detach().float())
        metrics = {name: [v.detach().float() if isinstance(v, Tensor) else v] for name, v in values.items()}
        weights = {name: [1.0] for name in values}
    for index, counts in share(0 if whole_step else len(batches), team, even=sharded):
        with accelerator.autocast():
            loss, values = objective(model, send_to_device(batches[index], accelerator.device), step)
        accelerator.backward(loss if counts else loss * 0.0)
        if not counts:
            continue
        losses.append(loss.detach().float())
        # In first ones, so that equal shares weigh exactly 1.
        weight = getattr(batches[index], "share", 1.0) / getattr(batches[0], "share", 1.0)
        for name, value in values.items():
            told = value.detach().float() if isinstance(value, Tensor) else value
            metrics.setdefault(name, []).append(weight * told)
            weights.setdefault(name, []).append(weight)
    if taken := metrics.keys() & set(_OWN):
        raise UserError(f"The objective names a metric {sorted(taken)[0]!r}, which the loop writes itself.")
    sum_gradients(parameters, team)
    norm = accelerator.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    means = {"loss": torch.stack(losses).sum() if losses else 0.0, "grad_norm": norm}
    means |= {name: sum(values) / sum(weights[name]) for name, values in metrics.items()}
    on_device = {name: value for name, value in means.items() if isinstance(value, Tensor)}
    read = torch.stack([value.float().reshape(()) for value in on_device.values()]).tolist()
    row = {**means, **dict(zip(on_device, read, strict=True))}
    if team.several:
        return join_rows(row, {name: sum(found) for name, found in weights.items()}, team)
    return row


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    """Accelerate for one device and precision.

    Accelerate keeps both in one state per process and refuses to change it; a grid trains many cells in a
    process, so the state is cleared here, as transformers' TrainingArguments does.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda" and on_machine > torch.cuda.device_count():
        raise UserError(
            f"{on_machine} processes on this machine and {torch.cuda.device_count()} GPUs; start one process a GPU."
        )
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
