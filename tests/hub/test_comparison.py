"""A comparison whose checkpoints come from the Hub and whose results go there: every cell, the card, and back again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from hub.instead import unplugged
from hub.pushed import WANDB, Pushed, run_and_sent, stitch_of, sutura
from hub.stand_in import TOKEN, Fault
from sutura.compare.grid import CELL, LEDGER
from sutura.compare.publish import report
from sutura.core.checkpoint import load_tensors, read_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_file
from sutura.evals.training_record import RECORD
from sutura.hub.export import export
from sutura.hub.pull import pull, stitches_of, take_cells
from sutura.hub.push import push
from sutura.stitch.bundle import STITCH, load_stitch
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import place_of
from sutura.stitch.seal import seal


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """One run for the whole module."""
    with run_and_sent(tmp_path_factory) as made:
        yield made


def test_every_cell_is_there_with_its_folder_and_the_whole_with_its_card(pushed: Pushed) -> None:
    files = pushed.hub.repos["model", "me/toy"].files
    assert pushed.hub.repos["model", "me/toy"].private
    for name in ("vit", "clip", "blind"):
        folder = f"{name}/seed-0"
        assert {f"{folder}/{part}" for part in (STITCH, CELL, LEDGER, "README.md")} <= set(files)
    commits = len(pushed.hub.repos["model", "me/toy"].commits)
    assert commits >= 4, "each cell by itself, then the whole"
    assert "was not sent" in pushed.said
    assert "It is tried again at the end" in " ".join(pushed.said.split())
    card = files["README.md"].decode()
    about = yaml.safe_load(card.split("---")[1])
    assert about["base_model"] == ["org/clip", "org/lm", "org/vit"]
    results = (pushed.runs / "toy" / "report.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| vit |"))
    assert row in results.splitlines(), "the card's table is the report's"
    assert "[" in row.split("|")[2], "with its interval"
    assert "sutura compare --preset toy.yaml" in card
    for name in ("vit", "clip", "lm"):
        assert pushed.hub.repos["model", f"org/{name}"].refs["main"] in card


def test_thumbnails_of_training_pictures_stay_and_that_is_said(pushed: Pushed, tmp_path: Path) -> None:
    """What a stitch remembers of its training pictures is its owner's to publish."""
    assert list(pushed.runs.rglob(f"stitch/{RECORD}")), "there is something to leave out"
    assert not [name for name in pushed.hub.repos["model", "me/toy"].files if name.endswith(RECORD)]
    assert f"{RECORD} stays here" in " ".join(pushed.said.split())
    assert "32 × 32 thumbnails" in pushed.hub.repos["model", "me/toy"].files["README.md"].decode()
    stitch = next(pushed.runs.glob("cells/*/stitch"))
    push(stitch, "me/with-thumbnails", thumbnails=True)
    assert [name for name in pushed.hub.repos["model", "me/with-thumbnails"].files if name.endswith(RECORD)]


def test_commits_of_every_part_stand_in_the_records(pushed: Pushed) -> None:
    for path in pushed.runs.glob(f"cells/*/{CELL}"):
        cell = read_json(path)
        assert cell["revisions"]["llm"] == pushed.hub.repos["model", "org/lm"].refs["main"]
        if cell["encoder"] in ("vit", "clip"):
            commit = pushed.hub.repos["model", f"org/{cell['encoder']}"].refs["main"]
            assert cell["revisions"]["encoder"] == commit
        assert read_json(path.parent / "stitch" / STITCH)["llm_revision"] == cell["revisions"]["llm"]


def test_no_file_and_no_word_holds_a_secret(
    pushed: Pushed, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run, its push, and calls that fail: refused, cut off, misspelled."""
    monkeypatch.chdir(tmp_path)
    pushed.hub.faults.append(Fault("/api/models/me/toy", times=-1, status=500))
    assert sutura("pull", "me/toy") == 2
    pushed.hub.faults.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN[::-1])
    assert sutura("push", str(pushed.runs / "toy"), "--repo", "me/toy") == 2
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert sutura("compare", f"HF_TOKEN={TOKEN}") == 2
    assert sutura("ask", "--from-hub", f"me/{TOKEN}", "What?") == 2
    out, err = capfd.readouterr()
    secrets = (TOKEN, TOKEN[::-1], WANDB)
    for secret in secrets:
        assert secret not in out + err + pushed.said
    places = [pushed.home, tmp_path]
    found = [p for place in places for p in place.rglob("*") if p.is_file() and p.name != ".env"]
    assert len(found) > 20
    for path in found:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path
    for repo in pushed.hub.repos.values():
        for name, content in repo.files.items():
            assert not any(secret.encode() in content for secret in secrets), name


def test_no_path_of_this_machine_is_sent_and_the_seals_hold(pushed: Pushed, tmp_path: Path) -> None:
    """Checkpoints in local folders: their last part is left, in every text, and the stitch is whole all the same."""
    cell, place = tmp_path / "cells" / "one", tmp_path / "somebody"
    source = next(p.parent for p in pushed.runs.glob(f"cells/*/{CELL}") if read_json(p)["encoder"] == "vit")
    shutil.copytree(source, cell)
    for path in cell.rglob("*.json"):
        text = path.read_text().replace("hf:org/vit", f"{place}/My Models/vit").replace("org/lm", "~/big/lm")
        path.write_text(text)
    metrics = next(cell.rglob("metrics.jsonl"))
    metrics.write_text(f'{{"note": "{place}/pictures/a.jpg"}}\n' + metrics.read_text())
    push(
        cell,
        "me/local",
        command=f"sutura stitch --encoder '{place}/My Models/vit' --out {place}/out",
    )
    files = pushed.hub.repos["model", "me/local"].files
    for name, content in files.items():
        assert b"somebody" not in content, name
        assert b"big/lm" not in content, name
    assert "--out out" in files["vit/seed-0/README.md"].decode()
    (folder,) = stitches_of("me/local")
    manifest = read_json(folder / STITCH)
    assert manifest["config"]["encoder"]["id"] == "vit"
    assert manifest["seal"] == seal(manifest)
    for name, expected in manifest["files"].items():
        if name != RECORD and not name.endswith(".md"):
            assert fingerprint_file(folder / name) == expected, name


def test_the_stitches_answer_from_the_hub_as_they_do_here(pushed: Pushed) -> None:
    shown = Image.effect_noise((64, 64), 90).convert("RGB")
    here = {read_json(p / STITCH)["encoder"].get("name"): p for p in pushed.runs.glob("cells/*/stitch")}
    (folder,) = stitches_of("me/toy", "vit")
    there = load_stitch(folder, device="cpu")
    assert there.ask(shown, "What?") == load_stitch(here["vit"], device="cpu").ask(shown, "What?")
    moved = pushed.hub.repos["model", "org/lm"]
    before = moved.refs["main"]
    moved.commit({"model.safetensors": b"other weights"})
    try:
        assert load_stitch(folder, device="cpu").llm_revision == before, (
            "the commit trained on, not the branch"
        )
        with unplugged():
            assert load_stitch(folder, device="cpu").ask(shown, "What?") == there.ask(shown, "What?")
    finally:
        moved.refs["main"] = before


def test_pulled_it_is_a_comparison_whose_report_can_be_computed_again(pushed: Pushed, tmp_path: Path) -> None:
    written = pull("me/toy", tmp_path / "runs")
    assert written[0] == tmp_path / "runs" / "toy"
    again = report(written[0]).read_text()
    first = (pushed.runs / "toy" / "report.md").read_text()
    table = [line for line in first.splitlines() if line.startswith("| ")][:4]
    assert all(line in again for line in table)
    assert "3 cells were not computed here but taken from me/toy at commit" in again
    with pytest.raises(UserError, match="exists already and is never overwritten"):
        pull("me/toy", tmp_path / "runs")


def test_a_comparison_takes_finished_cells_from_the_hub(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs: list[int] = []
    monkeypatch.setattr("sutura.compare.run.run_jobs", lambda found, *_: jobs.append(len(found)))
    options = ["--preset", str(pushed.home / "toy.yaml"), "--from-hub", "me/toy", "hub.push=false"]
    assert sutura("compare", *options) == 0
    assert jobs == [0]
    text = (tmp_path / "runs" / "toy" / "report.md").read_text()
    assert f"taken from me/toy at commit {pushed.hub.repos['model', 'me/toy'].refs['main']}" in text


def test_one_stitch_is_sent_too(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault: `sutura stitch` takes hub.push=true, sends nothing and says nothing."""
    monkeypatch.chdir(pushed.home)
    command = ["stitch", "--preset", "toy.yaml", "--encoder", "clip", "--out"]
    assert sutura(*command, str(tmp_path / "clip"), "hub.repo=me/one") == 0
    files = pushed.hub.repos["model", "me/one"].files
    expected = {f"clip/seed-0/{part}" for part in (STITCH, CELL, LEDGER, "README.md")}
    assert expected <= set(files)
    assert not [name for name in files if not name.startswith("clip/seed-0/") and name != ".gitattributes"]
    assert "sutura stitch --preset toy.yaml --encoder clip" in files["clip/seed-0/README.md"].decode()

    monkeypatch.setenv("HF_TOKEN", "hf_0000000wrong")
    assert sutura(*command, str(tmp_path / "refused"), "hub.repo=me/two") == 2
    assert not (tmp_path / "refused").exists(), "told before anything is trained"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pushed.hub.faults.append(Fault("POST /api/models/me/three/commit", times=-1, status=500))
    assert sutura(*command, str(tmp_path / "kept"), "hub.repo=me/three") == 2
    pushed.hub.faults.clear()
    told = " ".join(capfd.readouterr().err.split())
    assert f"The stitch is at {tmp_path}/kept; send it with `sutura push runs/cells/" in told
    assert (tmp_path / "kept" / STITCH).is_file()
    assert sutura(*command, str(tmp_path / "alone"), "hub.push=false", "hub.repo=me/four") == 0
    assert ("model", "me/four") not in pushed.hub.repos


def test_a_cell_with_a_path_for_a_hash_is_refused(pushed: Pushed, tmp_path: Path) -> None:
    """Fault: a name from the network becomes a place on this machine."""
    pushed.hub.repo("you/evil", {"vit/seed-0/cell.json": b'{"hash": "../../evil", "protocol": "1"}'})
    with pytest.raises(UserError, match="which is none"):
        take_cells("you/evil", tmp_path / "runs")
    assert list(tmp_path.rglob("evil*")) == []


def test_what_cannot_be_sent_is_a_sentence(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stitch = next(pushed.runs.glob("cells/*/stitch"))
    with pytest.raises(UserError, match="is nothing to send"):
        push(tmp_path, "me/toy")
    with pytest.raises(UserError, match=r"Where to.*HF_REPO_ID"):
        push(stitch)
    pushed.hub.repo("me/public", {"README.md": b"seen"})
    with pytest.raises(UserError, match="'me/public' is public, and what is sent was to be private"):
        push(stitch, "me/public")
    assert set(pushed.hub.repos["model", "me/public"].files) == {"README.md"}
    push(stitch, "me/public", private=False)
    monkeypatch.setenv("HF_TOKEN", "hf_0000000wrong")
    with pytest.raises(UserError, match="refuses the token for 'me/other'"):
        push(stitch, "me/other")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_REPO_ID", "me/from-the-environment")
    assert push(stitch).endswith("/me/from-the-environment")
    assert not any(
        b"from-the-environment" in data
        for data in pushed.hub.repos["model", "me/from-the-environment"].files.values()
    )


def test_a_planted_key_in_what_is_sent_stops_everything(pushed: Pushed, tmp_path: Path) -> None:
    cell = tmp_path / "cells" / "one"
    shutil.copytree(next(p.parent for p in pushed.runs.glob(f"cells/*/{CELL}")), cell)
    (cell / "metrics.jsonl").write_text(f'{{"step": 1, "note": "{TOKEN}"}}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl holds the value of HF_TOKEN; nothing was sent"):
        push(cell, "me/leak")
    assert ("model", "me/leak") not in pushed.hub.repos


def test_an_export_for_peft_gives_the_same_logits(pushed: Pushed, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source = stitch_of(pushed, "vit")
    out = export(source, tmp_path / "peft")
    ours = load_stitch(source, device="cpu")
    lm = AutoModelForCausalLM.from_pretrained(place_of(LlmConfig(id="org/lm"))[0])
    theirs: Any = PeftModel.from_pretrained(lm, str(out / "adapter")).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours.model.lm(input_ids=ids).logits)
    assert read_json(out / "adapter" / "adapter_config.json")["base_model_name_or_path"] == "org/lm"
    assert read_json(out / "config.json")["language_model"]["revision"] == ours.llm_revision


def test_an_export_for_llava_is_its_sequence(pushed: Pushed, tmp_path: Path) -> None:
    """The card's own lines build the module, every key lands, and it projects as ours does."""
    import torch
    from torch import nn

    source = stitch_of(pushed, "clip")
    out = export(source, tmp_path / "llava", "llava")
    config = read_json(out / "config.json")
    assert config["mm_projector_type"] == "ln_mlp2x_gelu"
    assert config["mm_vision_select_layer"] == -1
    d, w = config["mm_hidden_size"], config["hidden_size"]
    weights = load_tensors(out / "mm_projector.safetensors")
    module = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, w), nn.GELU(), nn.Linear(w, w))
    module.load_state_dict(
        {k.removeprefix("model.mm_projector."): v for k, v in weights.items()}, strict=True
    )
    patches = torch.randn(1, 3, d)
    ours = load_stitch(source, device="cpu")
    with torch.inference_mode():
        torch.testing.assert_close(module(patches), ours.model.project(patches))
    assert (out / "adapter_model.safetensors").is_file()


def test_what_cannot_be_exported_is_a_sentence(pushed: Pushed, tmp_path: Path) -> None:
    blind = next(p for p in pushed.runs.glob("cells/*/stitch") if not read_json(p / STITCH)["encoder"])
    for source, layout, said in (
        (blind, "peft", "is blind"),
        (tmp_path, "peft", "is no stitch"),
        (stitch_of(pushed, "vit"), "lava", "Did you mean 'llava'"),
    ):
        with pytest.raises(UserError, match=said):
            export(source, tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_a_ledger_of_older_columns_is_taken_and_a_changed_new_score_is_not(tmp_path: Path) -> None:
    """What is younger than a ledger is not known there; what is there must follow from the answers."""
    import polars as pl

    from sutura.core.errors import UserError
    from sutura.data.samples import BytesPicture, Sample
    from sutura.evals.ledger import ADDED, check_ledger, ledger_row
    from sutura.hub.pull import _check_ledger

    asked = Sample(BytesPicture(b""), "what?", ("blue",), "p", "i", "what")
    row = ledger_row(asked, "glue", run="h", encoder="e", seed=0, condition="blind", benchmark="b")
    facts = {"hash": "h", "encoder": "e", "seed": 0, "condition": "blind"}
    frame = check_ledger(pl.DataFrame([row]))
    frame.drop(list(ADDED[2])).write_parquet(tmp_path / "ledger.parquet")
    _check_ledger(tmp_path, facts, "It")
    frame.with_columns(pl.lit(1.0).alias("anls")).write_parquet(tmp_path / "ledger.parquet")
    with pytest.raises(UserError, match=r"says anls=1.0 where 'glue' scores 0.75"):
        _check_ledger(tmp_path, facts, "It")
