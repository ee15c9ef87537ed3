"""What processes tell each other is tested where they work together; here is what one does alone."""

from __future__ import annotations

import sys

import pytest

from sutura.core import processes
from sutura.core.errors import UserError
from sutura.core.processes import Processes, here, launched, share_out

LAUNCH = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WORLD_SIZE that a cluster left in the environment starts nothing."""
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert not launched()
    assert here() == Processes(0, 1)


def test_alone_everything_is_done_here() -> None:
    team = Processes()
    assert (team.first, team.several) == (True, False)
    assert team.from_first(lambda: 3) == 3
    assert team.gather("x") == ["x"]
    assert team.all_or_none(lambda: 4) == [4]

    def fails() -> None:
        raise UserError("as it was said")

    for way in (team.from_first, team.all_or_none):
        with pytest.raises(UserError, match=r"^as it was said$"):
            way(fails)


@pytest.mark.usefixtures("launch")
@pytest.mark.parametrize("command", ["pretrain", "zoo", "eval", "ask", "probe", "report"])
def test_a_command_that_is_not_shared_out_is_refused(command: str) -> None:
    with pytest.raises(UserError, match=rf"`sutura {command}` runs in one process, and 2 were started"):
        share_out([command, "--x"])


@pytest.mark.usefixtures("launch")
def test_what_shares_its_work_out_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process computes and prints nothing; the first prints."""
    monkeypatch.setattr(sys, "stdout", before := sys.stdout)
    monkeypatch.setenv("RANK", "0")
    share_out(["stitch", "--encoder", "zoo:clip"])
    assert sys.stdout is before
    monkeypatch.setenv("RANK", "1")
    share_out(["stitch", "--encoder", "zoo:clip"])
    assert sys.stdout is not before
    share_out(["compare"])
    share_out(["pretrain", "--help"])
    share_out([])


def test_a_launcher_that_started_one_instead_of_several_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment of the one it starts."""
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    share_out(["stitch"])
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match=r"asked for several processes.*started one.*--multi_gpu"):
        share_out(["stitch"])


@pytest.mark.usefixtures("launch")
@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_the_launchers_own_ways_are_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(UserError, match=rf"told to use {way}.*engine\.shard=fsdp"):
        processes.here()
