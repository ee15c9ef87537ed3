"""What comes from somebody else, and what is passed on: cells, ledgers, manifests that say what is not so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest

from hub.pushed import Pushed, run_and_sent, stitch_of, sutura
from hub.stand_in import TOKEN
from sutura.compare.grid import CELL, LEDGER
from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError
from sutura.hub.pull import pull, stitches_of, take_cells
from sutura.hub.push import push
from sutura.stitch.bundle import STITCH, load_stitch
from sutura.stitch.seal import seal


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """One run for the whole module."""
    with run_and_sent(tmp_path_factory) as made:
        yield made


def others(pushed: Pushed, name: str, change: Callable[[dict[str, bytes]], None]) -> str:
    """A repository of somebody else with one cell of ours, changed."""
    files = pushed.hub.repos["model", "me/toy"].files
    mine = {path: data for path, data in files.items() if path.startswith("vit/seed-0/")}
    change(mine)
    pushed.hub.repo(name, mine)
    return name


def edit_ledger(files: dict[str, bytes], change: pl.Expr) -> None:
    name = f"vit/seed-0/{LEDGER}"
    made = BytesIO()
    pl.read_parquet(BytesIO(files[name])).with_columns(change).write_parquet(made)
    files[name] = made.getvalue()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pl.lit(1.0).alias("exact"), "says exact=1.0 where"),
        (pl.lit("clip").alias("encoder"), "rows of encoder clip, which is not the cell's"),
        (pl.col("condition").replace("picture", "text-ceiling"), "rows of condition text-ceiling"),
        (pl.lit("another").alias("run"), "rows of run another"),
    ],
    ids=["scores", "encoder", "condition", "run"],
)
def test_a_ledger_that_claims_what_it_does_not_hold_is_not_taken(
    pushed: Pushed, tmp_path: Path, change: pl.Expr, said: str
) -> None:
    """Fault: whatever scores somebody else writes into a ledger stand in our report."""
    name = f"you/claims-{change.meta.output_name()}"
    repo = others(pushed, name, lambda files: edit_ledger(files, change))
    with pytest.raises(UserError, match=said):
        take_cells(repo, tmp_path / "runs")
    assert not list(tmp_path.rglob(LEDGER))


def test_a_cell_under_another_cells_name_is_noticed(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pushed.hub.repos["model", "me/toy"].files
    hashes = {name: json.loads(files[f"{name}/seed-0/{CELL}"])["hash"] for name in ("vit", "clip")}

    def swap(mine: dict[str, bytes]) -> None:
        cell = json.loads(mine[f"vit/seed-0/{CELL}"])
        mine[f"vit/seed-0/{CELL}"] = json.dumps({**cell, "hash": hashes["clip"]}).encode()
        edit_ledger(mine, pl.lit(hashes["clip"]).alias("run"))

    repo = others(pushed, "you/swapped", swap)
    monkeypatch.chdir(tmp_path)
    options = ["--preset", str(pushed.home / "toy.yaml"), "--from-hub", repo, "hub.push=false"]
    assert sutura("compare", *options) == 2
    assert "says encoder='vit', and this cell has 'clip'" in capsys.readouterr().err


def test_code_of_a_checkpoint_is_not_run_because_a_stitch_of_the_hub_says_so(
    pushed: Pushed, tmp_path: Path
) -> None:
    """Fault: `ask --from-hub` runs whatever program the stitch's language model or encoder brings along."""
    for part in ("llm", "encoder"):

        def change(files: dict[str, bytes], part: str = part) -> None:
            manifest = json.loads(files[f"vit/seed-0/{STITCH}"])
            manifest["config"][part]["trust_remote_code"] = True
            sealed = {**manifest, "seal": seal(manifest)}
            files[f"vit/seed-0/{STITCH}"] = json.dumps(sealed).encode()

        repo = others(pushed, f"you/code-{part}", change)
        for get in (stitches_of, lambda repo: pull(repo, tmp_path), lambda repo: take_cells(repo, tmp_path)):
            with pytest.raises(UserError, match="asks that code of a checkpoint be run"):
                get(repo)
    assert not list(tmp_path.rglob(STITCH))


def test_pushing_does_not_bless_what_was_damaged(pushed: Pushed, tmp_path: Path) -> None:
    """Fault: the manifest is sealed anew over weights that are not those that were saved."""
    for name in ("weights", "manifest"):
        stitch = tmp_path / name
        shutil.copytree(stitch_of(pushed, "vit"), stitch)
        if name == "weights":
            weights = stitch / "projector.safetensors"
            weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\1")
        else:
            manifest = read_json(stitch / STITCH)
            manifest["config"]["prompt"]["instruction"] = "See ~/notes/words.txt"
            write_json(stitch / STITCH, manifest)
        push(stitch, f"me/damaged-{name}")
        (folder,) = stitches_of(f"me/damaged-{name}")
        with pytest.raises(UserError, match=r"fingerprint differs|seal differs"):
            load_stitch(folder)


def test_a_manifest_cannot_send_files_from_elsewhere(pushed: Pushed, tmp_path: Path) -> None:
    """Fault: a stitch of somebody else, passed on, takes files of this machine with it."""
    stitch = tmp_path / "deep" / "stitch"
    shutil.copytree(stitch_of(pushed, "vit"), stitch)
    (tmp_path / "private.txt").write_text("mine")
    for name in ("../../private.txt", str(tmp_path / "private.txt")):
        manifest = read_json(stitch / STITCH)
        manifest["files"][name] = "0"
        write_json(stitch / STITCH, {**manifest, "seal": seal(manifest)})
        with pytest.raises(UserError, match=r"no file of that folder\. Nothing was sent"):
            push(stitch, "me/elsewhere")


def test_a_key_on_the_command_line_is_not_written_down(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("sutura.hub.run.run", lambda config, *, command, from_hub: written.append(command))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    options = ["--preset", str(pushed.home / "toy.yaml"), f"name=toy-{TOKEN}"]
    assert sutura("compare", *options) == 0
    assert len(written) == 1
    assert TOKEN not in written[0]
    assert "name=toy-(hidden)" in written[0]
