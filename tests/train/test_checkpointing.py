"""Resumed equals uninterrupted, and a checkpoint is whole or the program stops."""

from __future__ import annotations

import errno
import shutil

import pytest
import torch
from safetensors.torch import load_file

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.core.log import read_metrics
from sutura.train.checkpointing import checkpoints_in
from sutura.train.loop import fit
from sutura.train.optim import Group


class Killed(RuntimeError):
    pass


def run(toy, directory, *, resume=False, kill_after=None, model=None, **changes):
    model = toy.model() if model is None else model

    def on_step(done, row):
        if done == kill_after:
            raise Killed

    settings = {"seed": 3, "checkpoint_every": 3, "after_step": toy.follow, "on_step": on_step} | changes
    feed = settings.pop("feed", None) or toy.feed(12, bad=[1])
    optim = settings.pop("optim", toy.optim)
    result = fit(model, toy.objective, feed, optim, directory=directory, resume=resume, **settings)
    return model, result


def killed(toy, directory, after, **changes):
    with pytest.raises(Killed):
        run(toy, directory, kill_after=after, **changes)


def bits(directory, name="optimizer.safetensors"):
    return (checkpoints_in(directory)[-1] / name).read_bytes()


def rows(directory):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in read_metrics(directory / "metrics.jsonl")]


def by_muon(model):
    """The projector's matrix goes to Muon, everything else to AdamW."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    matrix = "projector.0.weight"
    rest = [name for name in names if name != matrix]
    return [Group("rest", rest), Group("matrix", [matrix], lr_scale=2.0, muon=True)]


def test_resumed_equals_uninterrupted_with_two_optimizers(toy, tmp_path):
    """Fault: the second optimizer starts anew after a resume."""
    whole, _ = run(toy, tmp_path / "whole", groups=by_muon)
    killed(toy, tmp_path / "parts", 5, groups=by_muon)
    resumed, _ = run(toy, tmp_path / "parts", groups=by_muon, resume=True)
    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())
    assert bits(tmp_path / "parts") == bits(tmp_path / "whole")
    state = load_file(checkpoints_in(tmp_path / "whole")[-1] / "optimizer.safetensors")
    assert "projector.0.weight::momentum_buffer" in state
    assert "head.weight::exp_avg" in state


@pytest.mark.parametrize("after", [3, 5, 10, 11])
def test_resumed_equals_uninterrupted(toy, tmp_path, after):
    """Fault: resume by a library call that skips batches and logs a missing RNG file.

    Killed on a checkpoint or between two, inside an epoch, with dropout, batch norm, a moving average, two
    uneven micro-batches a step, a skipped batch and a schedule: weights, buffers, optimizer, metrics agree.
    """
    whole, result = run(toy, tmp_path / "whole")
    killed(toy, tmp_path / "parts", after)
    torch.rand(17)
    resumed, again = run(toy, tmp_path / "parts", resume=True)

    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert bits(tmp_path / "parts", name) == bits(tmp_path / "whole", name)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert (tmp_path / "parts/bad_batches.jsonl").read_text() == (
        tmp_path / "whole/bad_batches.jsonl"
    ).read_text()
    assert again.loss == result.loss
    assert again.bad_batches == result.bad_batches == 1


def test_killed_twice_and_with_a_torn_last_line(toy, tmp_path):
    whole, _ = run(toy, tmp_path / "whole")
    killed(toy, tmp_path / "parts", 4)
    with (tmp_path / "parts/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    killed(toy, tmp_path / "parts", 8, resume=True)
    resumed, _ = run(toy, tmp_path / "parts", resume=True)
    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(toy, tmp_path):
    whole, result = run(toy, tmp_path)
    again, second = run(toy, tmp_path, resume=True)
    assert fingerprint_tensors(again.state_dict()) == fingerprint_tensors(whole.state_dict())
    assert second.loss == result.loss


def test_what_a_checkpoint_holds(toy, tmp_path):
    """What trains and what moved; the frozen encoder is not copied."""
    from sutura.core.checkpoint import load_tensors

    model, _ = run(toy, tmp_path)
    assert [p.name for p in checkpoints_in(tmp_path)] == ["checkpoint-9", "checkpoint-12"]
    held = load_tensors(tmp_path / "checkpoint-12/weights.safetensors")
    expected = {n for n in model.state_dict() if not n.startswith("encoder")}
    assert held.keys() == expected


def test_resume_without_a_checkpoint_is_an_error(toy, tmp_path):
    """Fault: resume swallows an exception and starts at epoch 0."""
    with pytest.raises(UserError, match="There is no checkpoint"):
        run(toy, tmp_path, resume=True)
    with pytest.raises(UserError, match="need a directory"):
        run(toy, None)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "position.json"])
@pytest.mark.parametrize("harm", ["remove", "truncate", "flip"])
def test_a_harmed_checkpoint_stops_the_program(toy, tmp_path, name, harm):
    """Fault: a missing piece is logged and training goes on."""
    killed(toy, tmp_path, 7)
    path = tmp_path / "checkpoint-6" / name
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        at = data.index(b"6") if name == "position.json" else len(data) - 3
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    model = toy.model()
    before = fingerprint_tensors(model.state_dict())
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        run(toy, tmp_path, resume=True, model=model)
    assert fingerprint_tensors(model.state_dict()) == before, "nothing may be loaded from a harmed checkpoint"


def test_lost_metrics_stop_a_resume(toy, tmp_path):
    killed(toy, tmp_path, 7)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="does not hold the 6 steps"):
        run(toy, tmp_path, resume=True)


def test_a_checkpoint_of_another_run_is_refused(toy, tmp_path):
    killed(toy, tmp_path, 4)
    for changes, told in (
        ({"seed": 4}, "seed: checkpoint 3, now 4"),
        ({"feed": toy.feed(13)}, "steps: checkpoint 12, now 13"),
        ({"optim": toy.optim.model_copy(update={"lr": 1.0})}, "optim"),
        ({"config_hash": "abc"}, "config: checkpoint '', now 'abc'"),
    ):
        with pytest.raises(UserError, match=told):
            run(toy, tmp_path, resume=True, **changes)


def test_a_checkpoint_of_another_model_is_refused(toy, tmp_path):
    killed(toy, tmp_path, 4)
    wider = toy.model()
    wider.head = torch.nn.Linear(8, 2)
    with pytest.raises(UserError, match=r"does not fit this model: head\."):
        run(toy, tmp_path, resume=True, model=wider)


def test_a_new_run_does_not_mix_with_an_old_one(toy, tmp_path):
    """Fault: run directories collide."""
    killed(toy, tmp_path, 4)
    with pytest.raises(UserError, match="checkpoint-3 of an earlier run"):
        run(toy, tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-3")
    run(toy, tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "os"])
def test_a_full_disk_is_told_and_leaves_the_older_checkpoint_whole(toy, tmp_path, monkeypatch, kind):
    import safetensors.torch
    from safetensors import SafetensorError

    whole, _ = run(toy, tmp_path / "whole")
    real, calls = safetensors.torch.save_file, []

    def full(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) < 4:
            return real(tensors, path, metadata=metadata)
        path.write_bytes(b"half a file")
        if kind == "os":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match=r"checkpoint-6 .*No space left.*Earlier checkpoints are whole"):
        run(toy, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir() if "checkpoint" in p.name] == ["checkpoint-3"]

    monkeypatch.setattr(safetensors.torch, "save_file", real)
    resumed, _ = run(toy, tmp_path / "full", resume=True)
    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())


@pytest.mark.parametrize("flush", [4, 5, 6])
def test_a_disk_that_fills_up_at_any_file_of_a_checkpoint_loses_nothing(toy, tmp_path, monkeypatch, flush):
    """ENOSPC at the flush of the second checkpoint's weights, optimizer state or position."""
    from sutura.core import checkpoint

    whole, _ = run(toy, tmp_path / "whole")
    real, calls = checkpoint.os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == flush:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UserError, match=r"checkpoint-6 .*No space left.*Earlier checkpoints are whole"):
        run(toy, tmp_path / "full")
    monkeypatch.undo()
    left = sorted(p.name for p in (tmp_path / "full").iterdir())
    assert left == ["bad_batches.jsonl", "checkpoint-3", "metrics.jsonl"], (
        "something half-written stays behind"
    )
    resumed, _ = run(toy, tmp_path / "full", resume=True)
    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())


def test_metrics_that_meet_a_full_disk_stop_the_run_and_lose_nothing(toy, tmp_path, monkeypatch):
    from pathlib import Path

    whole, _ = run(toy, tmp_path / "whole")
    real, lines = Path.open, []

    def full(self, mode="r", *args, **options):
        if self.name == "metrics.jsonl" and mode == "a":
            lines.append(mode)
            if len(lines) == 5:
                with real(self, "a") as file:
                    file.write('{"step": 5, "lo')
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl could not be written.*No space left.*resume"):
        run(toy, tmp_path / "full")
    monkeypatch.undo()
    resumed, _ = run(toy, tmp_path / "full", resume=True)
    assert fingerprint_tensors(resumed.state_dict()) == fingerprint_tensors(whole.state_dict())
    assert rows(tmp_path / "full") == rows(tmp_path / "whole")


def test_what_a_killed_save_left_is_ignored_and_swept(toy, tmp_path):
    killed(toy, tmp_path, 4)
    left = tmp_path / ".checkpoint-6.abc"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    run(toy, tmp_path, resume=True)
    assert not left.exists()
