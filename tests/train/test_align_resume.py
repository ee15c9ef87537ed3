"""An `align` run that was stopped between checkpoints ends with the bits of one that was not."""

from __future__ import annotations

import pytest

from sutura.core.errors import UserError
from sutura.train.align_run import prepare, run_align
from sutura.train.checkpointing import Checkpoints
from tiny_align import bits


def test_resumed_equals_uninterrupted_and_fresh_begins_anew(align_toy, tmp_path):
    def run(name, stop=0, **how):
        ready = prepare(align_toy(directory=str(tmp_path / name)))

        def on_step(done, row):
            if done == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                run_align(ready, on_step=on_step, **how)
        else:
            run_align(ready, **how)
        return ready.folder

    whole = run("whole")
    cut = run("cut", stop=5)
    assert not (cut / "weights.safetensors").exists()
    assert run("cut", resume=True) == cut
    assert bits(cut) == bits(whole)
    left = run("fresh", stop=5)
    assert (left / "checkpoint-4").is_dir()
    assert bits(run("fresh", fresh=True)) == bits(whole)


def test_resuming_with_another_config_is_refused_with_what_there_is(align_toy):
    ready = prepare(align_toy())
    with pytest.raises(KeyboardInterrupt):
        run_align(ready, on_step=_stop_at_three)
    other = prepare(align_toy("optim.lr=0.002"))
    with pytest.raises(UserError, match=f"no checkpoint of this run.*{ready.folder.name}"):
        run_align(other, resume=True)
    other.folder = ready.folder
    with pytest.raises(UserError, match="belongs to another run"):
        run_align(other, resume=True)


def _stop_at_three(done, row):
    if done == 3:
        raise KeyboardInterrupt


def test_a_queue_and_its_moving_average_go_on_where_they_were(align_toy, tmp_path, monkeypatch):
    """Stopped between checkpoints. Planted: a restore that leaves out the queue, or the average, ends elsewhere."""
    given = ("loss.contrastive=infonce", "loss.queue=8", "average.decay=0.9", "phases=[{alpha: 0.2}]")

    def run(name, stop=0, **how):
        ready = prepare(align_toy(*given, directory=str(tmp_path / name)))

        def on_step(done, row):
            if done == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                run_align(ready, on_step=on_step, **how)
        else:
            run_align(ready, **how)
        return ready

    def left(ready):
        queue = ready.built.training.queue
        return (
            bits(ready.folder),
            bits(ready.folder, "average.safetensors"),
            queue.images.tolist(),
            int(queue.seen),
        )

    whole = left(run("whole"))
    run("cut", stop=5)
    assert left(run("cut", resume=True)) == whole
    real = Checkpoints._restore_weights
    for lost in ("queue.", "momentum."):
        run(lost, stop=5)

        def restore(self, path, tensors, moved, lost=lost):
            real(
                self,
                path,
                {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)},
                [name for name in moved if not name.startswith(lost)],
            )

        monkeypatch.setattr(Checkpoints, "_restore_weights", restore)
        found = left(run(lost, resume=True))
        monkeypatch.setattr(Checkpoints, "_restore_weights", real)
        assert found[0] != whole[0]
