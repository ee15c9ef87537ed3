"""CC3M and CC12M: lists of URLs with captions, made ready for img2dataset, which does the downloading."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sutura.core.checkpoint import atomic_file
from sutura.core.download import download
from sutura.core.errors import UserError
from sutura.core.runtime import cpu_count
from sutura.data.samples import SetAside

#: Lines of a list in one row group of the Parquet file.
_ROWS = 200_000


@dataclass(frozen=True)
class WebList:
    """A published list.

    Args:
        name: of the set.
        page: where people get it.
        url: of the file.
        columns: as the file has them, without a header.
        count: pairs when it was published.
        source: the paper.
    """

    name: str
    page: str
    url: str
    columns: tuple[str, str]
    count: int
    source: str


LISTS = {
    "cc3m": WebList(
        "cc3m",
        "https://ai.google.com/research/ConceptualCaptions/download",
        "https://storage.googleapis.com/gcc-data/Train/GCC-training.tsv",
        ("caption", "url"),
        3_318_333,
        "Sharma et al. 2018, Conceptual Captions (ACL)",
    ),
    "cc12m": WebList(
        "cc12m",
        "https://github.com/google-research-datasets/conceptual-12m",
        "https://storage.googleapis.com/conceptual_12m/cc12m.tsv",
        ("url", "caption"),
        12_423_374,
        "Changpinyo et al. 2021, Conceptual 12M (arXiv:2102.08981)",
    ),
}


@dataclass(frozen=True)
class Prepared:
    """A list that is ready, and the command that downloads its pictures.

    Args:
        path: Parquet with `url` and `caption`.
        pairs: rows in it.
        published: pairs that the list had when it was published.
        set_aside: lines that are no pair.
        command: of img2dataset.
        folder: where its pictures go.
    """

    path: Path
    pairs: int
    published: int
    set_aside: SetAside
    command: tuple[str, ...]
    folder: Path

    def text(self) -> str:
        """For the terminal."""
        aside = f"; set aside: {self.set_aside.summary()}" if len(self.set_aside) else ""
        found = self.pairs + len(self.set_aside)
        other = (
            ""
            if found == self.published
            else f" The published list has {self.published:,} lines, this {found:,}."
        )
        return (
            f"{self.path}: {self.pairs:,} pairs of URL and caption{aside}.{other}\n\n"
            f"{shlex.join(self.command)}\n\n"
            "A part of such addresses is gone by now, more every year. A run that was stopped goes on where it was. "
            f"Afterwards: sutura data manifest {shlex.quote(str(self.path.parent))}"
        )


def prepare(
    name: str,
    folder: Path,
    *,
    given: Path | None = None,
    url: str | None = None,
    size: int = 256,
    on_bytes: Callable[[int, int | None], None] | None = None,
) -> Prepared:
    """Get a list (unless it is given, or was fetched before), check it, and write it as Parquet.

    Parquet, because a TSV is read with quoting there, and a caption that begins with a quotation mark would swallow
    the lines after it.

    Args:
        name: `cc3m` or `cc12m`.
        folder: where everything goes; made here.
        given: the list, downloaded by hand.
        url: another address of it.
        size: shorter side of the pictures, in pixels; smaller ones stay as they are.
        on_bytes: called while the list is fetched.

    Raises:
        UserError: it cannot be fetched, is not there, or is no such list.
    """
    one = LISTS[name]
    raw = given or folder / f"{name}.tsv"
    if given is not None and not given.is_file():
        raise UserError(f"There is no list at {str(given)!r}.")
    fetched = not raw.is_file()
    if fetched:
        folder.mkdir(parents=True, exist_ok=True)
        by_hand = f"The list can be had by hand from {one.page}; then give it with --list FILE."
        download(url or one.url, raw, instead=by_hand, on_bytes=on_bytes)
    try:
        path, pairs, aside = _to_parquet(one, raw, folder / f"{name}.parquet")
    except UserError:
        if fetched:
            raw.unlink()  # what came is no list; the next run fetches again
        raise
    pictures = folder / "pictures"
    return Prepared(path, pairs, one.count, aside, img2dataset(path, pictures, size), pictures)


def img2dataset(path: Path, folder: Path, size: int) -> tuple[str, ...]:
    """Its command: shards of 10,000, the ratio of the sides kept, pictures never made larger, owners who say no heard.

    Args:
        path: Parquet with `url` and `caption`.
        folder: where the shards go.
        size: shorter side, in pixels.
    """
    options = {
        "url_list": path,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": folder,
        "processes_count": cpu_count(),
        "thread_count": 64,
        "image_size": size,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "encode_quality": 90,
        "number_sample_per_shard": 10_000,
        "retries": 1,
        "enable_wandb": False,
        "user_agent_token": "img2dataset",
        "disallowed_header_directives": '["noai", "noimageai", "noindex", "noimageindex"]',
    }
    return ("img2dataset", *(part for key, value in options.items() for part in (f"--{key}", str(value))))


def run(command: tuple[str, ...]) -> None:
    """Start the command and wait for it.

    Raises:
        UserError: img2dataset is not installed, or it failed.
    """
    if shutil.which(command[0]) is None:
        raise UserError(
            f"{command[0]} is not installed, and is no dependency of Sutura: its own environment is best, since it "
            f"asks for old versions of other packages (`pip install {command[0]}`). Then run the command above there."
        )
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UserError(
            f"{command[0]} ended with code {done.returncode}; run it again, it goes on where it was."
        )


def _to_parquet(one: WebList, raw: Path, path: Path) -> tuple[Path, int, SetAside]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    aside, pairs = SetAside(), 0
    schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        batch: list[dict[str, str]] = []
        for pair in _pairs(one, raw, aside):
            batch.append(pair)
            pairs += 1
            if len(batch) == _ROWS:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        if not pairs:
            raise UserError(f"{raw.name} has no pair of URL and caption in it. Set aside: {aside.summary()}.")
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return path, pairs, aside


def _pairs(one: WebList, raw: Path, aside: SetAside) -> Iterator[dict[str, str]]:
    """Lines as pairs. Raises UserError when the first line is neither a pair in the list's order nor a header."""
    order = one.columns
    with raw.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
            if number == 1 and sorted(field.lower() for field in fields) == ["caption", "url"]:
                order = tuple(field.lower() for field in fields)
                continue
            pair = dict(zip(order, fields, strict=False))
            fine = len(fields) == 2 and re.match(r"https?://", pair.get("url", "")) is not None
            if number == 1 and not fine:
                page = " It looks like a web page." if line.lstrip().startswith("<") else ""
                raise UserError(
                    f"{raw.name} is not the list of {one.name}: its lines are {' and '.join(one.columns)}, with a tab "
                    f"between them, and the first one has {len(fields)} column{'s' * (len(fields) != 1)}: "
                    f"{line.strip()[:120]!r}.{page}"
                )
            if not fine:
                aside.add("not a URL and a caption", f"line {number}")
            elif not pair["caption"]:
                aside.add("empty caption", f"line {number}")
            else:
                yield pair
