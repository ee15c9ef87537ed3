"""The `answer` form: train it, ask it what stitches are asked, and the tasks it takes on unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sutura.core.checkpoint import atomic_file, load_tensors, read_json, save_tensors, write_json
from sutura.core.config import parse
from sutura.core.doctor import machine, versions
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import progress_bars, say
from sutura.core.runtime import pick_device
from sutura.data.samples import SetAside
from sutura.evals.answer_inputs import Inputs, load_inputs
from sutura.evals.answer_report import page
from sutura.evals.answer_tasks import answer_rows, candidate_answers, share
from sutura.evals.answer_world import decode_streams, gallery, retrieve, world_classification
from sutura.evals.baselines import majority_rows
from sutura.evals.contamination import overlap
from sutura.evals.ledger import NO_ENCODER, write_ledger
from sutura.evals.run import derangement
from sutura.train.answer import AnswerModel, build_answer_model, fit_answer
from sutura.train.answer_config import AnswerConfig
from sutura.train.answer_feed import to_asked
from sutura.train.checkpointing import checkpoints_in
from sutura.train.run_folder import CONFIG, PAGE, REPORT, run_once, write_settings

WEIGHTS, LEDGER = "weights.safetensors", "ledger.parquet"
FORM, BLIND = "answer", "blind"


def train(values: Mapping[str, Any], *, fresh: bool, resume: bool, out: Path | None, command: str) -> str:
    """As `sutura.evals.jepa.Form` says.

    Raises:
        UserError: values, data, encoder or language model that do not fit; `resume` without a checkpoint.
    """
    config = parse(AnswerConfig, values, where="the preset of form answer")
    _check_tasks(config)
    inputs = load_inputs(config)
    built = build_answer_model(config, inputs.encoder.width)
    folder = Path(config.directory) / run_name(config, inputs, built)
    return run_once(
        folder,
        lambda: _run(config, inputs, built, folder, command),
        fresh=fresh,
        resume=resume,
        out=out,
        stages=(BLIND,),
    )


def _check_tasks(config: AnswerConfig) -> None:
    """Refuse before anything is loaded what the tasks at the end would be refused for."""
    if config.test.source == "world":
        return
    if asked := [name for name in ("classify", "streams") if getattr(config.tasks, name)]:
        raise UserError(
            f"tasks.{asked[0]} is of the built-in world, and the test data is {config.test.source!r}; set it to 0."
        )


def _check_texts(
    config: AnswerConfig, inputs: Inputs, built: AnswerModel, candidates: tuple[str, ...]
) -> None:
    """Every text that is embedded after training fits the text encoder. Raises UserError before training."""
    built.answers.encode(candidates)
    if config.tasks.gallery:
        built.answers.encode(gallery(config, inputs)[1])


def run_name(config: AnswerConfig, inputs: Inputs, built: AnswerModel) -> str:
    """`<name>-<hash>`: of all that decides the result; not of where it runs and is kept."""
    settings = {
        k: v for k, v in config.resolved().items() if k not in ("device", "directory", "checkpoint_every")
    }
    settings["features"] = {"dtype": config.features.dtype}
    read = [inputs.train.fingerprint, inputs.test.fingerprint, inputs.encoder.fingerprint, built.fingerprint]
    return f"{config.name}-{fingerprint([settings, *read])}"


def _run(config: AnswerConfig, inputs: Inputs, built: AnswerModel, folder: Path, command: str) -> None:
    write_settings(folder, FORM, config.resolved(), command)
    aside, device = SetAside(), pick_device(config.device)
    pictures = to_asked(inputs.train, built.prompt, built.answers, aside)
    candidates = candidate_answers(inputs.train.samples, config.tasks.most_candidates, config.tasks.least)
    _check_texts(config, inputs, built, candidates)
    overlapping = overlap(inputs.train, inputs.test, directory=Path(config.directory) / "hashes").summary()
    say(f"overlap of training and test pictures: {overlapping}")
    trained: dict[str, Any] = {}

    def learn(what: AnswerModel, features: Any, place: Path, label: str) -> None:
        for name, (frozen, trainable) in what.parts().items():
            say(f"{label}: {name} {frozen:,} frozen, {trainable:,} trainable")
        with progress_bars() as bars:
            task = bars.add_task(f"training {label}", total=None, note="")
            result, feed = fit_answer(
                what,
                config,
                pictures,
                features,
                place,
                run=folder.name,
                device=device,
                on_step=lambda done, row: bars.update(
                    task, completed=done, note=f"loss {row['loss'] or 0:.3f}"
                ),
            )
        trained[label] = {
            "steps": result.steps,
            "seconds": result.seconds,
            "answers": feed.answers,
            "bad_batches": result.bad_batches,
            "loss": asdict(result.loss),
            "parts": what.parts(),
        }

    learn(built, inputs.features, folder, config.name)
    save_tensors(folder / WEIGHTS, learned(built))
    rows = _score(config, inputs, built, candidates, folder.name, aside)
    if config.blind:
        blind = build_answer_model(config, None)
        learn(blind, None, folder / BLIND, BLIND)
        rows += answer_rows(
            blind, inputs.test, candidates, None, run=folder.name, encoder=NO_ENCODER, seed=config.seed,
            condition="blind", benchmark=_benchmark(inputs), batch=config.tasks.batch,
        )  # fmt: skip
    rows += majority_rows(inputs.train.samples, inputs.test.samples, benchmark=_benchmark(inputs))
    meta = {"data": {"train": inputs.train.fingerprint, _benchmark(inputs): inputs.test.fingerprint}}
    write_ledger(folder / LEDGER, rows, meta)
    report = {
        "form": FORM,
        "run": str(folder),
        "seed": config.seed,
        "encoder": inputs.encoder.name,
        "fingerprints": {"encoder": inputs.encoder.fingerprint, "networks": built.fingerprint},
        "train": inputs.train.facts(),
        "test": inputs.test.facts(),
        "candidates": len(candidates),
        "training": trained,
        "vqa": scores(rows, config.seed),
        "overlap": overlapping,
        "set_aside": aside.counts,
        **_tasks(config, inputs, built),
        "machine": machine(),
        "versions": versions(),
    }
    with atomic_file(folder / PAGE) as temporary:
        temporary.write_text(page(report, config, command), encoding="utf-8")
    write_json(folder / REPORT, report)
    for checkpoint in (*checkpoints_in(folder), *checkpoints_in(folder / BLIND)):
        shutil.rmtree(checkpoint)


def _benchmark(inputs: Inputs) -> str:
    return f"{inputs.test.name}/{inputs.test.split}"


def _score(
    config: AnswerConfig,
    inputs: Inputs,
    built: AnswerModel,
    candidates: tuple[str, ...],
    run: str,
    aside: SetAside,
) -> list[dict[str, Any]]:
    """Discriminative VQA with the right pictures, and with every picture swapped for another."""
    ids = sorted({picture.image_id for picture in inputs.test.pictures})
    rows = []
    for condition in ("picture", "wrong-picture"):
        if condition == "wrong-picture" and len(ids) < 2:
            say("wrong pictures: the test data has one picture, so there is no other to show")
            continue
        rows += answer_rows(
            built,
            inputs.test,
            candidates,
            inputs.features,
            run=run,
            encoder=inputs.encoder.name,
            seed=config.seed,
            condition=condition,
            benchmark=_benchmark(inputs),
            wrong=derangement(ids, config.seed) if condition == "wrong-picture" else None,
            batch=config.tasks.batch,
            set_aside=aside if condition == "picture" else None,
        )
    return rows


def _tasks(config: AnswerConfig, inputs: Inputs, built: AnswerModel) -> dict[str, Any]:
    """The other tasks, each where the config asks for it."""
    found: dict[str, Any] = {}
    if config.tasks.classify:
        found["classification"] = world_classification(built, config, inputs)
    if config.tasks.gallery:
        found["retrieval"] = retrieve(built, config, inputs)
    if config.tasks.streams:
        found["streams"] = decode_streams(built, config, inputs)
    return found


def scores(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Exact match by condition, and by question type with the right pictures."""
    found: dict[str, Any] = {}
    for condition in dict.fromkeys(row["condition"] for row in rows):
        some = [row for row in rows if row["condition"] == condition]
        found[condition] = share([r["exact"] for r in some], [r["image_id"] for r in some], seed).facts()
    some = [row for row in rows if row["condition"] == "picture"]
    found["by type"] = {
        kind: share(
            [r["exact"] for r in some if r["question_type"] == kind],
            [r["image_id"] for r in some if r["question_type"] == kind],
            seed,
        ).facts()
        for kind in sorted({row["question_type"] for row in some})
    }
    return found


def learned(built: AnswerModel) -> dict[str, torch.Tensor]:
    """The weights that training changed; the others come from the language model and the text encoder."""
    return {name: p for name, p in built.model.named_parameters() if p.requires_grad}


def load_answer(folder: Path, device: str = "cpu") -> tuple[AnswerModel, AnswerConfig]:
    """A finished run's model, whole or not at all.

    Raises:
        UserError: no such run, one of another form or unfinished, or weights that do not fit.
    """
    written = read_json(folder / CONFIG)
    if written.get("form") != FORM:
        raise UserError(f"{folder} is a run of form {written.get('form')!r}, not {FORM!r}.")
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} is not finished: it holds no {WEIGHTS}. Run its command again: {written['command']}"
        )
    config = parse(AnswerConfig, written["config"], where=str(folder / CONFIG))
    tensors = load_tensors(folder / WEIGHTS)
    projector = sorted(name for name in tensors if name.startswith("projector.") and tensors[name].ndim == 2)
    from sutura.encoders import load_encoder

    encoder = load_encoder(config.encoder) if projector else None
    built = build_answer_model(config, encoder.width if encoder is not None else None)
    report = read_json(folder / REPORT) if (folder / REPORT).is_file() else {}
    now = {"encoder": encoder.fingerprint if encoder is not None else None, "networks": built.fingerprint}
    for name, before in report.get("fingerprints", {}).items():
        if now[name] not in (None, before):
            what = config.encoder.id if name == "encoder" else f"{config.predictor.id} or {config.text.id}"
            raise UserError(
                f"{folder} was trained beside other frozen weights: {what} has fingerprint {now[name]}, and the run "
                f"wrote {before}. Give back the files it was trained with, or train it again."
            )
    places = learned(built)
    wrong = sorted(places.keys() ^ tensors.keys())
    wrong += [name for name in places.keys() & tensors.keys() if places[name].shape != tensors[name].shape]
    if wrong:
        raise UserError(f"Weights of {folder} do not fit: {', '.join(wrong[:4])}. Nothing was loaded.")
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])
    built.model.to(pick_device(device)).eval()
    return built, config
