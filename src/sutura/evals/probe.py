"""Probes: what can be read off an encoder's frozen features, beside what knowing nothing would score."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.runtime import pick_device
from sutura.data.label_source import LabelSource
from sutura.data.labelled import LabelledParts, LabelledPictures, load_labelled
from sutura.encoders.base import VisionEncoder
from sutura.encoders.config import EncoderConfig
from sutura.encoders.text import TwoTower
from sutura.evals.probe_attentive import attentive_probe
from sutura.evals.probe_config import ProbeConfig, probe_config
from sutura.evals.probe_features import Features, encode_parts, left_out
from sutura.evals.probe_fewshot import draw_shots, fewshot
from sutura.evals.probe_knn import vote
from sutura.evals.probe_linear import GRADIENT, choose_penalty, fit_linear, sweep
from sutura.evals.probe_record import Probed, ProbeResult
from sutura.evals.probe_scores import plain_score
from sutura.evals.zero_shot import templates_for, zero_shot_scores


def probe(
    encoders: str | Sequence[Any],
    data: str | Mapping[str, Any] | LabelSource = "world",
    kinds: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    **sections: Any,
) -> ProbeResult:
    """Put probes on frozen encoders.

    Args:
        encoders: an id, a config or several of them, as `load_encoder` takes them.
        data: `world`, a file, a folder, a Hub name (see `label_source`), or a LabelSource.
        kinds: of `linear`, `knn`, `attentive`, `fewshot`, `zeroshot`; all but the last by default.
        overrides: `section.key=value`, as on the command line.
        out: receives the figures as JSON, and under the same name every picture's scores as Parquet.
        sections: further values of ProbeConfig (`linear={...}`, `seed=1`).

    Returns:
        A score, its interval and its floor for every encoder and probe.

    Raises:
        UserError: an unknown encoder, probe or set; a picture in two of the parts; one class, fewer pictures
            than classes, labels out of range, a class that no picture fitted on has.
    """
    listed = [encoders] if isinstance(encoders, str | EncoderConfig | Mapping) else list(encoders)
    config = probe_config(listed, data, kinds, overrides, **sections)
    if out is not None and out.suffix != ".json":
        raise UserError(f"The figures are written as JSON; {out.name!r} does not end in .json.")
    eyes = [_load(row, config) for row in config.encoders]
    result = run_probes(config, load_labelled(config.data), eyes)
    if out is not None:
        result.save(out)
    return result


class Eyes(NamedTuple):
    """An encoder, and its model with both towers where that is asked for."""

    name: str
    encoder: VisionEncoder | None
    tower: TwoTower | None


def _load(row: EncoderConfig, config: ProbeConfig) -> Eyes:
    """All that the kinds of probes need of an encoder, before any long work."""
    from sutura.encoders.loaders import load_encoder
    from sutura.encoders.text import load_two_tower

    device = pick_device(config.device)
    tower = load_two_tower(row) if "zeroshot" in config.kinds else None
    if tower is not None:
        tower.model.to(device)
    trained = set(config.kinds) != {"zeroshot"}
    return Eyes(row.display_name(), load_encoder(row).to(device) if trained else None, tower)


def run_probes(config: ProbeConfig, parts: LabelledParts, eyes: Sequence[Eyes]) -> ProbeResult:
    """As `probe`, for encoders and pictures that are loaded already."""
    parts, overlap = checked(parts, config)
    for note in (*parts.notes, overlap):
        say(note)
    probed: list[Probed] = []
    for one in eyes:
        for found in _of_encoder(one, parts, config):
            say(f"{found.encoder}: {found.probe} in {found.seconds:.1f} s")
            probed.append(found)
    aside = left_out(parts)
    if len(aside):
        say(f"Set aside: {aside.summary()}")
    return ProbeResult.of(config, parts, probed, overlap)


def checked(parts: LabelledParts, config: ProbeConfig) -> tuple[LabelledParts, str]:
    """Refuse parts that share pictures, and labels that no probe can be fitted on.

    Returns:
        The parts (with `on_overlap: drop`, without the pictures that a later part has too), and a sentence.

    Raises:
        UserError: a picture in two parts, one class, fewer pictures than classes, a class that is tested and
            not fitted, or fewer pictures than neighbours or shots.
    """
    parts, overlap = _disjoint(parts, config.data.on_overlap)
    fit, classes = parts.fit, len(parts.fit.classes)
    name, shown = fit.name, fit.counts()
    if classes < 2 or (not fit.several and (shown > 0).sum() < 2):
        raise UserError(f"{name!r} has one class to fit on ({fit.classes[0]!r}); a probe needs at least two.")
    if fit.several and not ((shown > 0) & (shown < len(fit))).any():
        raise UserError(f"Every picture of {name!r} shows the same labels; there is nothing to tell apart.")
    for part in (parts.fit, parts.test):
        if len(part) < classes:
            raise UserError(
                f"{name!r} has {len(part)} pictures to {part.part} on and {classes} classes; give at least one "
                "picture a class."
            )
    strange = [c for c in range(classes) if parts.test.counts()[c] and not shown[c]]
    if strange and not fit.several and set(config.kinds) != {"zeroshot"}:
        count = int(parts.test.counts()[strange].sum())
        raise UserError(
            f"{count} test pictures of {name!r} carry {len(strange)} classes that no picture fitted on has "
            f"({', '.join(fit.classes[c] for c in strange[:3])})."
        )
    if "knn" in config.kinds and min(config.knn.ks) > len(fit):
        raise UserError(
            f"knn.ks starts at {min(config.knn.ks)}, and there are {len(fit)} pictures to fit on."
        )
    if "fewshot" in config.kinds:
        draw_shots(fit.labels, classes, max(config.fewshot.shots), 0)
    return parts, overlap


def _disjoint(parts: LabelledParts, on_overlap: str) -> tuple[LabelledParts, str]:
    """No picture, judged by its pixels, in two parts."""
    order = (parts.fit, parts.select, parts.test)
    shared = {
        (one.part, other.part): set(one.hashes) & set(other.hashes) for one, other in combinations(order, 2)
    }
    sizes = " / ".join(f"{len(part):,}" for part in order)
    if not any(shared.values()):
        return parts, f"Pictures to fit / select / test on: {sizes}; none is in two parts (exact pixels)."
    told = ", ".join(f"{len(both):,} in {a} and {b}" for (a, b), both in shared.items() if both)
    if on_overlap == "refuse":
        raise UserError(
            f"The parts of {parts.fit.name!r} share pictures ({told}; {sizes} in all): a probe scored on pictures "
            "it was fitted on measures memory. Clean the set, or leave them out of the earlier part with "
            "data.on_overlap=drop."
        )
    later = set(parts.test.hashes)
    select = _without(parts.select, later)
    fit = _without(parts.fit, later | set(parts.select.hashes))
    kept = LabelledParts(fit, select, parts.test, parts.notes)
    return kept, f"Pictures in two parts ({told}) were left out of the earlier one."


def _without(part: LabelledPictures, hashes: set[str]) -> LabelledPictures:
    keep = [i for i, own in enumerate(part.hashes) if own not in hashes]
    if not keep:
        raise UserError(f"Every picture to {part.part} on is in a later part too; nothing is left.")
    for i, own in enumerate(part.hashes):
        if own in hashes:
            part.set_aside.add("also in a later part", part.pictures[i].image_id)
    return part.take(keep)


class _Told(NamedTuple):
    """Scores of one probe, before it has an encoder's name."""

    probe: str
    scores: Float[np.ndarray, "draws pictures classes"]
    chosen: dict[str, Any]
    fitted: int


def _of_encoder(eyes: Eyes, parts: LabelledParts, config: ProbeConfig) -> Iterator[Probed]:
    """Every probe of one encoder, as it is done."""
    began = time.perf_counter()
    features: tuple[Features, Features, Features] | None = None
    for kind in config.kinds:
        if kind == "zeroshot":
            told = _zero_shot(eyes, parts, config)
        else:
            if features is None:
                assert eyes.encoder is not None
                place = Path(config.runs) / "features"
                features = encode_parts(eyes.encoder, parts, place, config.features)
                began = time.perf_counter()
            told = _PROBES[kind](*features, len(parts.fit.classes), config)
        for one in told:
            now = time.perf_counter()
            yield Probed(eyes.name, *one, seconds=now - began)
            began = now


def _linear(
    fit: Features, select: Features, test: Features, classes: int, config: ProbeConfig
) -> Iterator[_Told]:
    c, both = config.linear, fit + select
    fits = sweep(fit.pooled(), fit.labels, classes, c.penalties, steps=c.steps)
    penalty, selection = choose_penalty(fits, select.pooled(), select.labels)
    final = fit_linear(both.pooled(), both.labels, classes, penalty, steps=c.steps)
    chosen: dict[str, Any] = {
        "penalty": penalty,
        "selection": {f"{p:g}": score for p, score in selection.items()},
        "gradient": final.gradient,
    }
    if len(c.penalties) > 1 and penalty in (min(c.penalties), max(c.penalties)):
        chosen["note"] = "the best penalty is an end of the grid"
    if slow := [f"{one.penalty:g}" for one in (*fits, final) if one.gradient > 10 * GRADIENT]:
        chosen["short of the optimum"] = f"penalty {', '.join(slow)} after {c.steps} steps"
    yield _Told("linear", final.scores(test.pooled())[None], chosen, len(both))


def _knn(
    fit: Features, select: Features, test: Features, classes: int, config: ProbeConfig
) -> Iterator[_Told]:
    c, both = config.knn, fit + select
    ks = sorted({k for k in c.ks if k <= len(fit)})
    votes = vote(select.pooled(), fit.pooled(), fit.labels, classes, ks, c.temperature)
    selection = {k: round(plain_score(votes[k], select.labels), 4) for k in ks}
    best = max(ks, key=lambda k: selection[k])
    scores = vote(test.pooled(), both.pooled(), both.labels, classes, [best], c.temperature)[best]
    chosen: dict[str, Any] = {"k": best, "selection": {str(k): score for k, score in selection.items()}}
    if dropped := sorted(set(c.ks) - set(ks)):
        chosen["note"] = f"k of {dropped} are more than the {len(fit)} pictures and were left out"
    yield _Told("knn", scores[None], chosen, len(both))


def _attentive(
    fit: Features, select: Features, test: Features, classes: int, config: ProbeConfig
) -> Iterator[_Told]:
    scores, chosen = attentive_probe(
        fit, select, test, classes, config.attentive, seed=config.seed, device=config.device
    )
    yield _Told("attentive", scores[None], chosen, len(fit) + len(select))


def _fewshot(
    fit: Features, select: Features, test: Features, classes: int, config: ProbeConfig
) -> Iterator[_Told]:
    for shots in config.fewshot.shots:
        scores, chosen = fewshot(
            fit,
            select,
            test,
            classes,
            shots=shots,
            draws=config.fewshot.draws,
            penalties=config.linear.penalties,
            steps=config.linear.steps,
            seed=config.seed,
        )
        yield _Told(f"fewshot-{shots}", scores, chosen, round(fmean(chosen["fitted"])))


_PROBES = {"linear": _linear, "knn": _knn, "attentive": _attentive, "fewshot": _fewshot}


def _zero_shot(eyes: Eyes, parts: LabelledParts, config: ProbeConfig) -> Iterator[_Told]:
    assert eyes.tower is not None
    templates = templates_for(parts.test, config.zeroshot.templates)
    scores = zero_shot_scores(eyes.tower, parts.test, templates, config.features.batch)
    yield _Told("zeroshot", scores[None], {"templates": list(templates)}, 0)
