"""Downloads against the stand-in: the commit is known, a broken connection goes on, and every no is a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub.instead import unplugged
from hub.stand_in import TOKEN, Fault, StandIn
from sutura.core.errors import UserError
from sutura.core.fetch import commit_of, fetch

BIG = bytes(range(256)) * 400
FILES = {"config.json": b'{"a": 1}', "model.safetensors": BIG, "notes.bin": b"not asked for"}
WANTED = ["*.json", "*.safetensors"]


def test_files_come_with_their_commit_and_are_there_without_a_connection(hub: StandIn) -> None:
    repo = hub.repo("org/name", FILES)
    found = fetch("org/name", patterns=WANTED)
    assert found.revision == repo.refs["main"]
    assert (found.folder / "model.safetensors").read_bytes() == BIG
    assert not (found.folder / "notes.bin").exists()
    with unplugged():
        before = len(hub.requests)
        assert fetch("org/name", patterns=WANTED) == found
        assert len(hub.requests) == before, "HF_HUB_OFFLINE asks nobody"


def test_a_pinned_commit_stays_when_the_branch_moves(hub: StandIn) -> None:
    repo = hub.repo("org/name", FILES)
    first = repo.refs["main"]
    second = repo.commit({"config.json": b'{"a": 2}'})
    assert (fetch("org/name", patterns=WANTED).folder / "config.json").read_bytes() == b'{"a": 2}'
    assert (
        fetch("org/name", revision=first, patterns=WANTED).folder / "config.json"
    ).read_bytes() == b'{"a": 1}'
    assert commit_of("org/name", None) == second
    assert commit_of("org/name", first) == first


@pytest.mark.parametrize(
    ("facts", "token", "faults", "said"),
    [
        ({"private": True}, None, [], r"no model repository 'org/name', or it is private.*HF_TOKEN"),
        ({"gated": True}, None, [], r"gated: accept its terms on http.*/org/name and log in.*HF_TOKEN"),
        ({}, "hf_wrong", [], r"refuses the token for 'org/name'.*Renew HF_TOKEN"),
        (
            {},
            None,
            [Fault("/api/models/org/name", -1, status=403)],
            r"lets you not read 'org/name'.*settings/tokens",
        ),
        ({}, None, [Fault("/api/models/org/name", -1, status=429)], r"too many requests.*wait some minutes"),
        ({}, None, [Fault("/api/models/org/name", -1, status=503)], r"answered 503.*fault on its side"),
        ({}, None, [Fault("/resolve/", -1, status=500)], r"answered 500.*fault on its side"),
    ],
)
def test_every_no_says_what_to_do(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch, facts: dict, token: str | None, faults: list, said: str
) -> None:
    hub.repo("org/name", FILES, **facts)
    hub.faults += faults
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=said) as failed:
        fetch("org/name", patterns=WANTED)
    assert token is None or token not in str(failed.value)


def test_a_token_opens_what_is_private_or_gated(logged_in: StandIn) -> None:
    for name, facts in (("org/private", {"private": True}), ("org/gated", {"gated": True})):
        logged_in.repo(name, FILES, **facts)
        assert (fetch(name, patterns=WANTED).folder / "config.json").is_file()


def test_missing_misspelled_and_unknown_revisions_are_sentences(hub: StandIn) -> None:
    hub.repo("org/name", FILES)
    for repo, revision, said in (
        ("org/nothing", None, "no model repository 'org/nothing'"),
        ("a/b/c", None, "has the form org/name"),
        ("org/name", "v9", "no revision 'v9'; look at .*/org/name/commits/main"),
    ):
        with pytest.raises(UserError, match=said):
            fetch(repo, revision=revision, patterns=WANTED)
        with pytest.raises(UserError, match=said):
            commit_of(repo, revision)


def test_a_renamed_repository_is_found_and_told(hub: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    repo = hub.repo("org/new", FILES)
    hub.moved["org/old"] = "org/new"
    found = fetch("org/old", patterns=WANTED)
    assert found.revision == repo.refs["main"]
    assert "org/old has moved: on the Hub it is called org/new now" in " ".join(
        capsys.readouterr().err.split()
    )


def test_offline_and_never_fetched_is_a_sentence(hub: StandIn) -> None:
    with unplugged():
        with pytest.raises(
            UserError, match=r"not in the local cache, and the Hub cannot be reached.*Run once"
        ):
            fetch("org/name", patterns=WANTED)
        assert commit_of("org/name", None) is None
    assert hub.requests == []


def test_half_a_download_is_noticed_offline_and_completed_online(hub: StandIn) -> None:
    """Fault: a folder that is there, and lacks a file, is taken for the checkpoint."""
    hub.repo("org/name", FILES)
    found = fetch("org/name", patterns=WANTED)
    (found.folder / "model.safetensors").resolve().unlink()
    (found.folder / "model.safetensors").unlink()
    with unplugged(), pytest.raises(UserError, match=r"only half in the local cache.*what is there is kept"):
        fetch("org/name", patterns=WANTED)
    hub.requests.clear()
    assert (fetch("org/name", patterns=WANTED).folder / "model.safetensors").read_bytes() == BIG
    assert not hub.asked("config.json"), "what was whole is not fetched again"


def test_a_cut_connection_goes_on_where_it_broke(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.repo("org/name", FILES)
    hub.faults.append(Fault("GET /org/name/resolve", times=1, after=70_000))
    hub.repos["model", "org/name"].commit({}, deleted=("config.json",))
    assert (fetch("org/name", patterns=WANTED).folder / "model.safetensors").read_bytes() == BIG
    ranges = [headers["Range"] for headers in hub.asked("GET /org/name/resolve") if "Range" in headers]
    assert len(ranges) == 1
    assert ranges[0] == "bytes=70000-"


def test_a_connection_that_breaks_off_for_good_is_a_sentence_and_the_next_run_ends_it(hub: StandIn) -> None:
    repo = hub.repo("org/name", FILES)
    hub.faults.append(Fault(f"GET /org/name/resolve/{repo.refs['main']}/model", times=-1, after=0))
    with pytest.raises(
        UserError, match=r"connection broke off while downloading 'org/name'.*Run the same command"
    ):
        fetch("org/name", patterns=WANTED)
    hub.faults.clear()
    assert (fetch("org/name", patterns=WANTED).folder / "model.safetensors").read_bytes() == BIG


def test_a_slow_hub_is_waited_for_and_then_told(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.repo("org/name", {"model.safetensors": BIG})
    hub.faults.append(Fault("GET /org/name/resolve", times=1, delay=0.5))
    assert (fetch("org/name", patterns=WANTED).folder / "model.safetensors").read_bytes() == BIG
    assert len(hub.asked("GET /org/name/resolve")) == 2
    shutil.rmtree(Path(constants.HF_HUB_CACHE))
    hub.faults.append(Fault("GET /org/name/resolve", times=-1, delay=0.3))
    with pytest.raises(UserError, match=r"connection broke off while downloading"):
        fetch("org/name", patterns=WANTED)


def test_the_token_is_in_no_message(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats what it was sent, and a library that quotes it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def quotes(*_: object, **__: object) -> str:
        raise ValueError(f"Illegal header value b'Bearer {TOKEN}'")

    monkeypatch.setattr("huggingface_hub.snapshot_download", quotes)
    with pytest.raises(UserError, match=r"Illegal header value b'Bearer \(hidden\)'"):
        fetch("org/name", patterns=WANTED)
