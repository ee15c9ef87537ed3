"""A look at a set of captions before anything is trained on it: how much there is, and what would be set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from sutura.core.config import apply_overrides, parse
from sutura.data.caption_source import CaptionSource, caption_splits, load_image_texts
from sutura.data.caption_splits import ALL
from sutura.data.captions import words_of
from sutura.data.image_texts import ImageTexts
from sutura.data.places import hub_path

#: Pixels of the squares that the check makes and throws away.
_SIDE = 16


def check(
    path: str,
    overrides: Sequence[str] = (),
    *,
    show: int = 5,
    least: int = 16,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Read every split of a set, decode every picture, and say what was found.

    Args:
        path: as `data.path`.
        overrides: of the other keys of a `CaptionSource`.
        show: examples of each kind of thing that is set aside.
        least: pixels that the shorter side of a picture must have.
        on_progress: called with the split, pictures read so far, and how many there are.

    Returns:
        Markdown.

    Raises:
        UserError: nothing there, or nothing usable.
    """
    file = {"name": Path(path).name} if Path(path).expanduser().is_file() else {}
    source = parse(CaptionSource, apply_overrides({"path": path, **file}, overrides), "the data")
    splits = caption_splits(source)
    if source.path != "world" and not source.files and source.divide == "auto":
        splits = _told(source, splits)
    lines = [f"# {hub_path(path)}", ""]
    lines += ["| split | pictures | captions | each | words (least, median, most) | set aside |"]
    lines += ["|---|---|---|---|---|---|"]
    below: list[str] = []
    with TemporaryDirectory(prefix="sutura-check-") as folder:
        for split in splits:
            data = load_image_texts(
                source,
                split=split,
                side=_SIDE,
                cache=Path(folder),
                least=least,
                on_progress=None if on_progress is None else _named(on_progress, split),
            )
            lines.append(_row(split, data))
            below += _findings(split, data, show)
    return "\n".join([*lines, "", *below])


def _told(source: CaptionSource, splits: tuple[str, ...]) -> tuple[str, ...]:
    """`all` where only content would divide the set."""
    from sutura.data.caption_splits import Splits

    return (ALL,) if Splits(source).by_content else splits


def _row(split: str, data: ImageTexts) -> str:
    counts = [len(words_of(text)) for own in data.captions for text in own]
    each = sorted({len(own) for own in data.captions})
    many = str(each[0]) if len(each) == 1 else f"{each[0]}–{each[-1]}"
    words = f"{min(counts)}, {median(counts):g}, {max(counts)}"
    return f"| {split} | {len(data):,} | {len(counts):,} | {many} | {words} | {len(data.set_aside):,} |"


def _findings(split: str, data: ImageTexts, show: int) -> list[str]:
    lines = [f"**{split}.** {data.about}"]
    for reason, items in data.set_aside.items.items():
        lines.append(f"- {len(items):,} set aside: {reason}")
        lines += [f"    - {item}" for item in items[:show]] + ["    - …"] * (len(items) > show)
    lines += _doubles("pictures stand there under more than one name", data.content, data.image_ids, show)
    texts = Counter(text for own in data.captions for text in own)
    broken = [text for text in texts if "\ufffd" in text]
    if broken:
        lines.append(f"- {len(broken):,} captions hold bytes that are no UTF-8")
        lines += [f"    - {text[:80]}" for text in broken[:show]]
    again = [(text, count) for text, count in texts.most_common(show) if count > 1]
    if again:
        total = sum(count for count in texts.values() if count > 1)
        lines.append(f"- {total:,} captions are not the only one with their text")
        lines += [f"    - {count:,} × {text[:80]}" for text, count in again]
    return [*lines, ""]


def _doubles(what: str, content: Sequence[str], ids: Sequence[str], show: int) -> list[str]:
    by_content: dict[str, list[str]] = {}
    for one, own in zip(content, ids, strict=True):
        by_content.setdefault(one, []).append(own)
    twice = [names for names in by_content.values() if len(names) > 1]
    lines = [f"- {len(twice):,} {what}"] if twice else []
    return lines + [f"    - {', '.join(names)}" for names in twice[:show]]


def _named(on_progress: Callable[[str, int, int], None], split: str) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(split, done, total)
