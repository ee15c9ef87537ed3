"""What img2dataset left: how many pictures arrived and why others did not; a manifest where they are single files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import atomic_file, read_json
from sutura.core.errors import UserError
from sutura.data.samples import SetAside
from sutura.data.shards import PICTURES, ShardRows


@dataclass(frozen=True)
class Downloaded:
    """An account of a download.

    Args:
        data: what to give as data: the folder of shards, or the manifest.
        record: the file written here.
        asked: URLs that were tried, by img2dataset's own record; 0 where there is none.
        failed: what it says of those that failed -> how many.
        pictures: that are there, with a caption.
        set_aside: what is there and cannot be used.
    """

    data: Path
    record: Path
    asked: int
    failed: dict[str, int]
    pictures: int
    set_aside: SetAside

    def text(self, show: int = 8) -> str:
        """For the terminal."""
        lines = [f"{self.pictures:,} pictures with captions, written down in {self.record}."]
        if self.asked:
            lost = sum(self.failed.values())
            lines.append(f"{self.asked:,} URLs were tried, {lost:,} failed ({lost / self.asked:.1%}):")
            ranked = sorted(self.failed.items(), key=lambda pair: -pair[1])
            lines += [f"  {count:>9,}  {reason}" for reason, count in ranked[:show]]
            rest = sum(count for _, count in ranked[show:])
            lines += [f"  {rest:>9,}  other reasons"] if rest else []
            there = self.asked - lost
            if there != self.pictures + len(self.set_aside):
                lines.append(
                    f"img2dataset counts {there:,} as saved; {self.pictures + len(self.set_aside):,} are here. A shard "
                    "is missing, was cut short, or belongs to another run."
                )
        else:
            lines.append("img2dataset's own counts (*_stats.json) are not there: what failed is not known.")
        lines.append(f"Set aside: {self.set_aside.summary()}.")
        lines.append(f"As data: {self.data} (look at it with `sutura data check {self.data}`).")
        return "\n".join(lines)


def take_stock(folder: Path) -> Downloaded:
    """Look through the output of img2dataset: shards, or folders of files.

    Of shards a record is written (shards.tsv: name, bytes, pictures, without caption), and the folder of shards is
    the data. Of files a manifest is written (manifest.tsv: image, caption), which is the data.

    Args:
        folder: as given to `prepare`, or the folder img2dataset wrote to.

    Raises:
        UserError: no such folder, nothing in it, or a shard that is cut short.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}.")
    inner = folder / "pictures" if (folder / "pictures").is_dir() else folder
    asked, failed = _counts(inner)
    shards = sorted(inner.glob("*.tar"))
    if shards:
        return _shards(folder, inner, shards, asked, failed)
    return _files(folder, inner, asked, failed)


def _counts(folder: Path) -> tuple[int, dict[str, int]]:
    """URLs tried and why some failed, of the shards that are finished."""
    asked, failed = 0, Counter[str]()
    for file in sorted(folder.glob("*_stats.json")):
        stats: dict[str, Any] = read_json(file)
        asked += int(stats.get("count", 0))
        told = {str(k): int(v) for k, v in stats.get("status_dict", {}).items() if k != "success"}
        lost = int(stats.get("count", 0)) - int(stats.get("successes", 0))
        failed.update(told)
        if lost > sum(told.values()):
            failed["no reason given"] += lost - sum(told.values())
    return asked, dict(failed)


def _shards(folder: Path, inner: Path, shards: list[Path], asked: int, failed: dict[str, int]) -> Downloaded:
    aside, pictures = SetAside(), 0
    lines = ["shard\tbytes\tpictures\twithout caption"]
    broken: list[str] = []
    for shard in shards:
        try:
            rows = ShardRows([shard], {}, ())
        except UserError as error:
            broken.append(str(error))
            continue
        without = [row for row in range(len(rows)) if not rows.captions(row)]
        aside.include(rows.set_aside)
        for row in without:
            aside.add("no caption", rows.where(row))
        pictures += len(rows) - len(without)
        place = shard.relative_to(folder).as_posix()
        lines.append(f"{place}\t{shard.stat().st_size}\t{len(rows)}\t{len(without)}")
    if broken:
        raise UserError(
            f"{len(broken):,} of {len(shards):,} shards are not whole: {' '.join(broken[:3])} Run the download again "
            "(it makes a shard anew whose *_stats.json is missing), or remove them."
        )
    if not pictures:
        raise UserError(
            f"The {len(shards):,} shards in {inner} hold no picture with a caption: {aside.summary()}."
        )
    record = folder / "shards.tsv"
    _write(record, lines)
    return Downloaded(inner, record, asked, failed, pictures, aside)


def _files(folder: Path, inner: Path, asked: int, failed: dict[str, int]) -> Downloaded:
    aside, lines = SetAside(), ["image\tcaption"]
    for file in sorted(inner.rglob("*")):
        if file.suffix.lower().removeprefix(".") not in PICTURES or not file.is_file():
            continue
        place, text = file.relative_to(folder).as_posix(), file.with_suffix(".txt")
        # A caption is one cell of a line: whitespace of any kind becomes one space.
        caption = " ".join(text.read_text("utf-8", "replace").split()) if text.is_file() else ""
        if not file.stat().st_size:
            aside.add("zero bytes", place)
        elif not caption:
            aside.add("no caption", place)
        elif "\t" in place or "\n" in place:
            aside.add("a tab in its name", place)
        else:
            lines.append(f"{place}\t{caption}")
    if len(lines) == 1:
        raise UserError(
            f"There is neither a .tar nor a picture with a caption (.txt beside it) in {inner}. Set aside: "
            f"{aside.summary()}."
        )
    record = folder / "manifest.tsv"
    _write(record, lines)
    return Downloaded(record, record, asked, failed, len(lines) - 1, aside)


def _write(path: Path, lines: list[str]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
