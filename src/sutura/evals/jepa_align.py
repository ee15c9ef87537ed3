"""`align` from preset to report: train, then retrieve held-out pictures and texts, the start and chance beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.checkpoint import atomic_file, write_json
from sutura.core.config import parse
from sutura.core.log import progress_bars, say
from sutura.train.align_config import AlignConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sutura.train.align_run import Prepared
    from sutura.train.loop import FitResult

REPORT, PAGE = "report.json", "report.md"
#: Weights of the last step, under this name in the report; others stand beside it.
TRAINED, START = "trained", "start (step 0)"


def train(values: Mapping[str, Any], *, fresh: bool, resume: bool, out: Path | None, command: str) -> str:
    """Train and score as the values say; a finished run is read, not trained again.

    Args:
        values: of an `AlignConfig`.
        fresh: remove what an unfinished run of this config left, and begin anew.
        resume: refuse to begin anew.
        out: also write the figures there, as JSON.
        command: for the record.

    Returns:
        The report in Markdown.

    Raises:
        UserError: values, pictures, captions or towers that do not fit; no checkpoint to resume.
    """
    config = parse(AlignConfig, values, where="the preset")
    from sutura.core.runtime import pick_device
    from sutura.evals.seen_pictures import read_seen, seen_in_test, write_seen
    from sutura.train.align_run import prepare, run_align
    from sutura.train.run_folder import run_once

    ready = prepare(config)

    def work() -> None:
        seen = seen_in_test(read_seen(ready.folder) or write_seen(ready.folder, ready.train), ready.test)
        say(seen.summary())
        ready.built.training.to(pick_device(config.device))
        # Before the first step; on a resume the towers of the start are the same ones again.
        scores = {START: scored(ready, ready.built.training.model.eval())}
        with progress_bars() as bars:
            task = bars.add_task(f"training {config.name}", total=ready.plan.steps, note="")

            def on_step(done: int, row: dict[str, Any]) -> None:
                loss = row["loss"]
                bars.update(task, completed=done, note="" if loss is None else f"loss {loss:.3f}")

            result = run_align(ready, command=command, on_step=on_step)
        scores |= {name: scored(ready, towers) for name, towers in variants(ready)}
        facts = gathered(ready, result, scores, command) | {"overlap": seen.facts()}
        from sutura.evals.jepa_align_page import page

        with atomic_file(ready.folder / PAGE) as temporary:
            temporary.write_text(page(facts), encoding="utf-8")
        write_json(ready.folder / REPORT, facts)

    return run_once(ready.folder, work, fresh=fresh, resume=resume, out=out)


def variants(ready: Prepared) -> Iterator[tuple[str, nn.Module]]:
    """Towers and heads to score: those of the last step, their moving average, and means with the start's."""
    import torch

    training, average = ready.built.training, ready.config.average
    training.eval()
    yield TRAINED, training.model
    if training.momentum is not None:
        yield f"moving average ({average.decay:g})", training.momentum
    for share in average.wise:
        mixed = copy.deepcopy(training.model)
        with torch.no_grad():
            for name, weight in mixed.named_parameters():
                if name in ready.first:
                    weight.lerp_(ready.first[name].to(weight.device), 1 - share)
        yield f"WiSE-FT ({share:g} trained)", mixed


def encoders(towers: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Pixels to embeddings and ids to embeddings, of a model or of a moving average of its parts."""
    vision, text = towers.get_submodule("context_encoder"), towers.get_submodule("text")
    image_head, text_head = towers.get_submodule("image_head"), towers.get_submodule("text_head")
    return lambda pixels: image_head(vision(pixels)[0]), lambda ids: text_head(text(ids)[0])


def scored(ready: Prepared, towers: nn.Module) -> dict[str, Any]:
    """Retrieval of the held-out pictures and all of their captions: the standard protocol, and NCE@1 in batches."""
    import torch

    from sutura.evals.retrieval import IN_BATCH, STANDARD, retrieval
    from sutura.losses.collapse import collapse_measures
    from sutura.train.align_look import embed_ids, embed_pictures
    from sutura.train.align_texts import tokenise

    built, data = ready.built, ready.test
    texts = tokenise(data, built.tokenizer, Path(ready.config.data.cache))
    pairs = [(row, text) for row, own in enumerate(texts.own) for text in own if text >= 0]
    owner, which = (torch.tensor([int(pair[i]) for pair in pairs]) for i in (0, 1))
    image, text = encoders(towers)
    device = next(towers.parameters()).device
    pictures = embed_pictures(image, data, built.mean, built.std, device)
    words = embed_ids(text, texts.rows(which.numpy()), device)
    found = {"standard": retrieval(pictures, words, owner, STANDARD).facts()}
    batch = min(ready.config.compared(), len(data))
    found["in_batch"] = retrieval(
        pictures, words, owner, IN_BATCH, batch=batch, seed=ready.config.seed
    ).facts()
    found["collapse"] = {"picture": collapse_measures(pictures), "text": collapse_measures(words)}
    return found


def gathered(
    ready: Prepared, result: FitResult, scores: Mapping[str, Mapping[str, Any]], command: str
) -> dict[str, Any]:
    """Everything that the report says, as plain data."""
    import torch

    from sutura.core.doctor import machine
    from sutura.train.align_run import negatives

    config, training = ready.config, ready.built.training
    parts = {
        name: sum(p.numel() for p in module.parameters()) for name, module in training.model.named_children()
    }
    assert result.history is not None
    return {
        "name": config.name,
        "form": "align",
        "run": ready.folder.name,
        "command": command,
        "seed": config.seed,
        "start": ready.built.start,
        "data": {name: getattr(ready, name).about for name in ("train", "test")},
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "skipped_steps": result.bad_batches,
        "machine": machine(),
        "device": str(training.model.log_scale.device),
        "torch": torch.__version__,
        "parameters": parts,
        "negatives": negatives(config),
        "cut_captions": ready.texts.cut,
        "flags": ready.plan.flags(),
        "phases": phases(ready, result.history),
        "scores": dict(scores),
        "config": config.resolved(),
    }


def phases(ready: Prepared, history: Path) -> list[dict[str, Any]]:
    """Of every phase: its steps, what moved in it, and each term's weight, mean value, share of loss and gradient."""
    from statistics import fmean

    from sutura.core.log import read_metrics

    rows, found = list(read_metrics(history)), []
    starts = [*ready.plan.starts, ready.plan.steps]
    for i, phase in enumerate(ready.plan.phases):
        own = [row for row in rows if starts[i] < row["step"] <= starts[i + 1]]
        terms = {}
        for name, weight in phase.weights().items():
            term: dict[str, float | None] = {"weight": weight}
            for key, column in (
                ("value", name),
                ("share", f"{name}_share"),
                ("gradient", f"{name}_gradient"),
            ):
                values = [row[column] for row in own if row.get(column) is not None]
                term[key] = fmean(values) if values else None
            terms[name] = term
        whole = sum(term["gradient"] or 0.0 for term in terms.values())
        for term in terms.values():
            gradient = term["gradient"]
            term["gradient_share"] = None if gradient is None or not whole else gradient / whole
        thawed = f", but for the last {phase.vision_blocks} blocks of vision" if phase.vision_blocks else ""
        found.append(
            {
                "first": starts[i] + 1,
                "last": starts[i + 1],
                "frozen": ", ".join(phase.frozen) + thawed or "nothing",
                "terms": terms,
            }
        )
    return found
