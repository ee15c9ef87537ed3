"""The `conditioned` form of VL-JEPA: train, ask whether the caption helped, probe, and write it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import atomic_file, load_tensors, read_json, save_tensors, write_json
from sutura.core.config import parse
from sutura.core.doctor import versions
from sutura.core.errors import UserError
from sutura.core.runtime import pick_device
from sutura.train.conditioned_config import TARGETS, ConditionedConfig
from sutura.train.run_folder import CONFIG, PAGE, REPORT, run_once, write_settings

WEIGHTS, LEDGER = "weights.safetensors", "captions.parquet"


def train(values: Mapping[str, Any], *, fresh: bool, resume: bool, out: Path | None, command: str) -> str:
    """As `sutura.evals.jepa.Form` says."""
    from sutura.train.conditioned import prepare

    config = parse(ConditionedConfig, values, where="the preset of form conditioned")
    prepared = prepare(config)
    folder = Path(config.directory) / prepared.run
    return run_once(folder, lambda: _run(prepared, folder, command), fresh=fresh, resume=resume, out=out)


def _run(prepared: Any, folder: Path, command: str) -> None:
    from sutura.evals.conditioned_probe import probe_run
    from sutura.evals.text_helps import score_captions, summary, verdict
    from sutura.train import conditioned
    from sutura.train.conditioned_memory import parameters, planned_memory

    c: ConditionedConfig = prepared.config
    write_settings(folder, "conditioned", c.resolved(), command)
    model = conditioned.build(prepared)
    hidden = round(c.mask.ratio * prepared.grid[0] * prepared.grid[1])
    plan = planned_memory(
        model,
        micro_batch=c.micro_batch,
        text_tokens=c.text.longest if c.text.use else 0,
        hidden=hidden,
        text_network=prepared.train.text.parameters if prepared.train.text else 0,
    )
    peak = _reset_peak(c.device)
    done = conditioned.train(prepared, model, folder)
    measured = peak()
    save_tensors(folder / WEIGHTS, _trained(model))
    frame = score_captions(model, prepared)
    with atomic_file(folder / LEDGER) as temporary:
        frame.write_parquet(temporary)
    told = summary(frame)
    probed = features = None
    if c.probe.data is not None:
        probed, features = probe_run(prepared, model)
        probed.save(folder / "probe.json")
    total, learning = parameters(model)
    report: dict[str, Any] = {
        "form": "conditioned",
        "run": str(folder),
        "seed": c.seed,
        "about": {
            "online": prepared.online.facts()["id"],
            "online_trains": c.online.train,
            "targets": TARGETS[c.target.kind],
            "target": prepared.target.name
            if prepared.target
            else f"moving average of {prepared.online.name}",
            "text": c.text.id if c.text.use else None,
            "mask": {
                "kind": c.mask.kind,
                "ratio": c.mask.ratio,
                "hidden": told["hidden"],
                "of": prepared.grid[0] * prepared.grid[1],
            },
            "loss": c.loss,
            "negatives": 0,
            "pictures": len(prepared.train.data),
            "held": len(prepared.held.data),
            "captions_cut": prepared.train.text.cut if prepared.train.text else 0,
            "set_aside": prepared.train.data.set_aside.counts,
            "parameters": total,
            "trained_parameters": learning,
        },
        "training": {
            **asdict(done.loss),
            "steps": done.steps,
            "seconds": done.seconds,
            "bad_batches": done.bad_batches,
        },
        "memory": {"planned": plan, "measured_peak": measured},
        "text_helps": told,
        "verdict": verdict(told, knows_none=c.text.drop > 0),
        "probe": None if probed is None else {row["encoder"]: row for row in probed.rows},
        "probed_features": features,
        "versions": versions(),
    }
    with atomic_file(folder / PAGE) as temporary:
        temporary.write_text(
            page(report, None if probed is None else probed.markdown(), command), encoding="utf-8"
        )
    write_json(folder / REPORT, report)


def _trained(model: Any) -> dict[str, Any]:
    """What training changed: the predictor, and the online and target encoders where they moved."""
    kept = {f"predictor.{name}": tensor for name, tensor in model.predictor.state_dict().items()}
    if any(p.requires_grad for p in model.online.parameters()):
        kept |= {f"online.{name}": tensor for name, tensor in model.online.state_dict().items()}
    if model.target is not None:
        kept |= {f"target.{name}": tensor for name, tensor in model.target.state_dict().items()}
    return kept


def load_run(folder: Path) -> tuple[Any, Any]:
    """A finished run's model and what it was prepared from.

    Raises:
        UserError: no such run, inputs that have changed since, or weights that do not fit.
    """
    from sutura.core.checkpoint import load_strict
    from sutura.train import conditioned

    written = read_json(folder / CONFIG)
    if written.get("form") != "conditioned":
        raise UserError(f"{folder} is a run of form {written.get('form')!r}, not conditioned.")
    prepared = conditioned.prepare(parse(ConditionedConfig, written["config"], where=str(folder / CONFIG)))
    if prepared.run != folder.name:
        raise UserError(
            f"{folder.name} was trained on other pictures or networks than are there now ({prepared.run})."
        )
    model = conditioned.build(prepared)
    saved = load_tensors(folder / WEIGHTS)
    for part in {name.partition(".")[0] for name in saved}:
        own = {k.partition(".")[2]: v for k, v in saved.items() if k.startswith(f"{part}.")}
        load_strict(getattr(model, part), own, f"{part} of {folder}")
    return model.eval(), prepared


def _reset_peak(device: str) -> Any:
    """Begin to count a GPU's memory; called at the end, the peak in bytes, or None on another device."""
    import torch

    on = pick_device(device)
    if on.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(on)
    return lambda: int(torch.cuda.max_memory_reserved(on))


def page(report: Mapping[str, Any], probe: str | None, command: str) -> str:
    """The report in Markdown: what the targets are, whether text helped, and what was probed."""
    a, told, run = report["about"], report["text_helps"], report["training"]
    trains = "nothing of it trains" if a["online_trains"] == "none" else f"trains: {a['online_trains']}"
    lines = [
        f"# Text-conditioned masked prediction: {Path(report['run']).name}",
        "",
        report["verdict"],
        "",
        f"Online encoder: {a['online']} ({trains}); hidden patches are dropped before its first block. "
        f"Targets: {a['targets']} ({a['target']}). Text: {a['text'] or 'none'}. "
        f"Mask: {a['mask']['kind']}, {a['mask']['hidden']} of {a['mask']['of']} patches of every picture hidden. "
        f"Loss: {a['loss']} at the hidden places. No negatives are used.",
        "",
        "| held-out pictures, loss a hidden patch | mean [95 %, over pictures] |",
        "| :-- | --: |",
    ]
    names = {
        "right": "the picture's own caption",
        "shuffled": "another picture's caption",
        "none": "no caption",
        "constant": "constant guess: the training pictures' mean target of the place",
    }
    lines += [f"| {name} | {_cell(told[key])} |" for key, name in names.items() if key in told]
    if "right" in told:
        lines += [
            f"| another's less own | {_cell(told['shuffled_less_right'], signed=True)} |",
            f"| none less own | {_cell(told['none_less_right'], signed=True)} |",
            "",
            f"The own caption beats the other at {100 * told['better']['mean']:.1f} % of the hidden patches. "
            f"{told['pictures']:,} pictures, the same patches hidden under every condition, one training seed.",
        ]
    lines += ["", _against_constant(told)]
    if a["captions_cut"]:
        lines += ["", f"{a['captions_cut']:,} training captions were longer than text.longest and were cut."]
    if a["set_aside"]:
        lines += ["", "Set aside: " + ", ".join(f"{n:,} {why}" for why, n in a["set_aside"].items()) + "."]
    plan, peak = report["memory"]["planned"]["peak"], report["memory"]["measured_peak"]
    memory = f"planned {plan / 1e9:.2f} GB" + (
        f", measured {peak / 1e9:.2f} GB" if peak else "; not on a GPU here"
    )
    lines += [
        "",
        f"{a['trained_parameters']:,} of {a['parameters']:,} parameters train, on {a['pictures']:,} pictures, "
        f"{run['steps']:,} steps in {run['seconds']:.0f} s; loss {run['first']:.3f} at first, {run['final_mean']:.3f} "
        f"over the last {run['window']} steps. GPU memory: {memory}.",
    ]
    if probe is not None:
        lines += ["", "## What a linear probe reads", "", probe, ""]
        lines += [f"- `{name}`: {what}." for name, what in report["probed_features"].items()]
    return "\n".join([*lines, "", f"Run: `{report['run']}`. Command: `{command}`.", ""])


def _against_constant(told: Mapping[str, Any]) -> str:
    """What is gained over a guess that does not look; or that nothing is."""
    how, share = "with the own caption" if "right" in told else "without text", told["explained"]
    if share <= 0:
        return (
            f"**The constant guess is not beaten** {how}: the loss is {-100 * share:.1f} % above its own. Train "
            "longer, or look at the targets: what all pictures share is most of them."
        )
    return f"Of the constant guess's loss, {100 * share:.1f} % is gone {how}."


def _cell(of: Mapping[str, Any], *, signed: bool = False) -> str:
    from sutura.evals.intervals import Mean

    return Mean(**of).cell(4, signed=signed)
