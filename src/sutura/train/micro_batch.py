"""The largest micro-batch that memory allows, found while training. The batch of a step stays what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.processes import Processes

Values = dict[str, Any]


def check_alone(team: Processes) -> None:
    """Refuse a micro-batch that adapts to memory where there are other processes.

    Raises:
        UserError: there are.
    """
    if team.several:
        raise UserError(
            "feed.micro_batch=auto cannot be used in several processes: one that ran out of memory would leave the "
            "others waiting. Find the size in one process, and set it."
        )


def until_it_fits(
    feed: Any,
    step: int,
    run: Callable[[Sequence[Any]], Values],
    forget: Callable[[], None],
) -> tuple[Values, Sequence[Any]]:
    """Run a step; where memory runs out and the feed adapts, halve the micro-batch and run the same step again.

    Weights move at the end of a step alone, and its gradients do not depend on how it is cut, so a run goes on from
    where it was. The smaller size holds for the rest of the run.

    Args:
        feed: gives the step's micro-batches; its `micro` is lowered where its `adapts` is true.
        step: from 0.
        run: forward and backward over micro-batches.
        forget: takes back what a run that broke off has left: gradients, drawn random numbers.

    Returns:
        What `run` gave, with `micro_batch` where the feed adapts; and the micro-batches it was given.

    Raises:
        UserError: memory does not hold a single picture with its questions.
    """
    if not getattr(feed, "adapts", False):
        batches = feed.micro_batches(step)
        return run(batches), batches

    from accelerate.utils import find_executable_batch_size
    from accelerate.utils.memory import should_reduce_batch_size

    def attempt(size: int) -> tuple[Values, Sequence[Any]]:
        feed.micro = size
        batches = feed.micro_batches(step)
        return {**run(batches), "micro_batch": size}, batches

    def halve() -> int:
        half = feed.micro // 2
        if half == 0:
            raise UserError(
                f"Memory ran out at step {step + 1} with a single picture and its questions in a pass. Set "
                "llm.gradient_checkpointing=true, fewer encoder.tokens, or a smaller language model; `sutura plan` "
                "tells what fits."
            )
        say(
            f"Memory ran out at step {step + 1} with micro-batches of {feed.micro} answers; going on with {half}."
        )
        forget()
        return half

    try:
        return attempt(feed.micro)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # Called only now: it empties the device's cache at each call, which is too slow for every step.
    return find_executable_batch_size(attempt, starting_batch_size=halve(), reduce_batch_size_fn=halve)()
