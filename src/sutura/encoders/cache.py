"""Features on disk: each picture is encoded once, and read back through a memory map."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.lock import locked_for_all
from sutura.core.log import say
from sutura.core.processes import Processes, here
from sutura.core.runtime import cpu_count, pick_dtype
from sutura.data.samples import BadPicture, PictureTurns, SetAside

if TYPE_CHECKING:
    from sutura.encoders.base import VisionEncoder

#: Raised when the layout on disk or the meaning of a row changes, so that no older cache is read.
FORMAT = 1
ROWS, INDEX = "features.bin", "index.json"
#: A picture that was unreadable goes into the tally under this, with its own reason behind it.
UNREADABLE = "unreadable picture"


class FeatureStore:
    """Patches of many pictures in one file; opened when first read, so that it travels between processes.

    Args:
        directory: as `cached_features` wrote it.

    Raises:
        UserError: a file missing, or one whose length is not what the index says.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        index = read_json(directory / INDEX)
        self.fingerprint: str = index["fingerprint"]
        self.num_tokens: int = index["num_tokens"]
        self.width: int = index["width"]
        self.dtype: str = index["dtype"]
        self.image_ids: tuple[str, ...] = tuple(index["image_ids"])
        self.unreadable: dict[str, str] = index["unreadable"]
        self.facts: dict[str, Any] = index["facts"]
        self._row = {name: row for row, name in enumerate(self.image_ids)}
        self._map: np.ndarray | None = None
        expected = estimate_bytes(len(self.image_ids), self.num_tokens, self.width, self.dtype)
        path = directory / ROWS
        if not path.is_file() or path.stat().st_size != expected:
            raise UserError(
                f"{path} should hold {expected:,} bytes and does not; remove {directory} and run again."
            )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def rows(self, image_ids: Sequence[str]) -> Float[Tensor, "pictures tokens width"]:
        """Patches of some pictures, in the order asked for and in the precision kept.

        Raises:
            UserError: a picture that is not in the store, with the reason when it was unreadable.
        """
        missing = [name for name in image_ids if name not in self._row]
        if missing:
            why = self.unreadable.get(missing[0])
            raise UserError(
                f"{len(missing)} pictures have no features ({', '.join(missing[:3])}"
                f"{' …' if len(missing) > 3 else ''}){f': {why}' if why else ''}."
            )
        taken = self._mapped()[[self._row[name] for name in image_ids]]
        return torch.from_numpy(taken).view(pick_dtype(self.dtype))

    def _mapped(self) -> np.ndarray:
        if self._map is None:
            shape = (len(self), self.num_tokens, self.width)
            kind = np.int32 if self.dtype == "float32" else np.int16  # bits only: NumPy has no bfloat16
            self._map = (
                np.memmap(self.directory / ROWS, kind, "r", shape=shape)
                if len(self)
                else np.zeros(shape, kind)
            )
        return self._map


class JoinedStore:
    """The stores of a fused encoder's parts, read side by side.

    Args:
        stores: of the same pictures, with the same number of tokens.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self.fingerprint = fingerprint([store.fingerprint for store in stores])
        self.num_tokens = stores[0].num_tokens
        self.width = sum(store.width for store in stores)
        self.dtype = stores[0].dtype
        self.unreadable: dict[str, str] = {k: v for store in stores for k, v in store.unreadable.items()}
        self.image_ids = tuple(name for name in stores[0].image_ids if all(name in s for s in stores))
        self._known = frozenset(self.image_ids)
        self.facts: dict[str, Any] = {"parts": [store.facts for store in stores]}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._known

    def rows(self, image_ids: Sequence[str]) -> Float[Tensor, "pictures tokens width"]:
        """Patches of some pictures, the parts' features of a patch one behind the other."""
        return torch.cat([store.rows(image_ids) for store in self.stores], dim=-1)


Store = FeatureStore | JoinedStore
"""Features of one encoder, or of a fused one."""


def estimate_bytes(pictures: int, num_tokens: int, width: int, dtype: str) -> int:
    """Size of the features of so many pictures, in bytes."""
    return pictures * num_tokens * width * pick_dtype(dtype).itemsize


def cached_features(
    encoder: VisionEncoder,
    pictures: Sequence[PictureTurns],
    directory: Path,
    *,
    data_fingerprint: str,
    batch_size: int = 64,
    dtype: str = "float16",
    on_progress: Callable[[int], None] | None = None,
    set_aside: SetAside | None = None,
) -> Store:
    """Features of pictures, from disk when they are there, else computed now and written whole or not at all.

    Two runs never compute the same features: the second waits for the first. The processes of one run share the
    batches out among them, and leave the bytes that one process would.

    Args:
        encoder: frozen; its fingerprint, the data's and the precision are the key. A fused one is kept part by part.
        pictures: a picture that stands here twice is encoded once.
        directory: of all caches.
        data_fingerprint: changes whenever a picture may have.
        batch_size: pictures encoded together.
        dtype: on disk; float16 halves what float32 takes.
        on_progress: told how many pictures are done.
        set_aside: unreadable pictures are entered here, from a cache too.

    Raises:
        UserError: the disk is full, the encoder is being trained, or features do not fit the precision.
    """
    parts = getattr(encoder, "parts", ())
    if parts:
        keep = partial(
            cached_features,
            pictures=pictures,
            directory=directory,
            data_fingerprint=data_fingerprint,
            batch_size=batch_size,
            dtype=dtype,
            on_progress=on_progress,
        )
        joined = JoinedStore([keep(part) for part in parts])
        if set_aside is not None:
            for name, reason in joined.unreadable.items():
                set_aside.add(f"{UNREADABLE}: {reason}", name)
        return joined
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise UserError(f"Encoder {encoder.name!r} is being trained, so its features cannot be kept on disk.")
    key = fingerprint([FORMAT, encoder.fingerprint, data_fingerprint, dtype])
    place = Path(directory) / key
    if not here().from_first(place.exists):
        distinct = list({turns.image_id: turns for turns in pictures}.values())
        _fill(encoder, distinct, place, key, batch_size, dtype, on_progress)
    store = FeatureStore(place)
    if set_aside is not None:
        for name, reason in store.unreadable.items():
            set_aside.add(f"{UNREADABLE}: {reason}", name)
    return store


def _fill(
    encoder: VisionEncoder,
    pictures: Sequence[PictureTurns],
    place: Path,
    key: str,
    batch_size: int,
    dtype: str,
    on_progress: Callable[[int], None] | None,
) -> None:
    """Compute the features, unless another run does so now or did so meanwhile."""
    team = here()
    needed = estimate_bytes(len(pictures), encoder.num_tokens, encoder.width, dtype)
    waiting = partial(say, f"{encoder.name}: another run is computing these features; waiting for it")
    with _room(place, needed):
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked_for_all(place.with_name(f".{key}.lock"), team, on_wait=waiting):
            if not team.from_first(place.exists):
                _compute(encoder, pictures, place, key, batch_size, dtype, on_progress, team)


def _compute(
    encoder: VisionEncoder,
    pictures: Sequence[PictureTurns],
    place: Path,
    key: str,
    batch_size: int,
    dtype: str,
    on_progress: Callable[[int], None] | None,
    team: Processes,
) -> None:
    """Every process encodes its share of the batches into a file of its own; the first one joins the files."""
    needed = estimate_bytes(len(pictures), encoder.num_tokens, encoder.width, dtype)
    began = time.perf_counter()

    def begin() -> Path:
        free = shutil.disk_usage(place.parent).free
        if needed > free:
            raise UserError(_full(place, needed, free))
        return stack.enter_context(atomic_directory(place))

    def encode(folder: Path) -> tuple[list[str], dict[str, str]]:
        if not folder.is_dir():
            raise UserError(f"{folder} is not to be seen; all processes need the same disk for the features.")
        with _room(place, needed):
            return _encode_share(encoder, pictures, folder, batch_size, dtype, on_progress, team)

    def finish(folder: Path, shares: Sequence[tuple[list[str], dict[str, str]]]) -> None:
        with _room(place, needed):
            _join(folder, team)
            write_json(
                folder / INDEX,
                {
                    "fingerprint": key,
                    "encoder": encoder.fingerprint,
                    "num_tokens": encoder.num_tokens,
                    "width": encoder.width,
                    "dtype": dtype,
                    "image_ids": [name for names, _ in shares for name in names],
                    "unreadable": {name: why for _, bad in shares for name, why in bad.items()},
                    "facts": {"name": encoder.name, "seconds": round(time.perf_counter() - began, 2)},
                },
            )
            stack.close()  # moves the directory to its place

    with ExitStack() as stack:
        folder = team.from_first(begin)
        shares = team.all_or_none(lambda: encode(folder))
        team.from_first(lambda: finish(folder, shares))


def _encode_share(
    encoder: VisionEncoder,
    pictures: Sequence[PictureTurns],
    folder: Path,
    batch_size: int,
    dtype: str,
    on_progress: Callable[[int], None] | None,
    team: Processes,
) -> tuple[list[str], dict[str, str]]:
    """Encode this process's run of whole batches; the pictures that gave rows, and the unreadable ones.

    Batches are cut as a single process cuts them, since a row's last bits depend on what it is encoded with.
    """
    batches = -(-len(pictures) // batch_size)
    first, last = (batches * place // team.count for place in (team.rank, team.rank + 1))
    mine = pictures[first * batch_size : last * batch_size]
    names: list[str] = []
    unreadable: dict[str, str] = {}
    with (folder / _part(team.rank)).open("wb") as file:
        for done, batch in _batches(encoder, mine, batch_size):
            good = {name: pixels for name, pixels in batch.items() if isinstance(pixels, Tensor)}
            unreadable |= {name: why for name, why in batch.items() if isinstance(why, str)}
            if good:
                features = _encode(encoder, torch.stack(list(good.values())), dtype)
                file.write(features.view(torch.uint8).numpy().tobytes())
                names += good
            if on_progress is not None:
                on_progress(min(done * team.count, len(pictures)))
    return names, unreadable


def _part(rank: int) -> str:
    return ROWS if rank == 0 else f"part-{rank}.bin"


def _join(folder: Path, team: Processes) -> None:
    """Append every other process's rows to the first one's, and remove each file once it is."""
    for rank in range(1, team.count):
        part = folder / _part(rank)
        with (folder / ROWS).open("ab") as rows, part.open("rb") as more:
            shutil.copyfileobj(more, rows, 16 * 1024 * 1024)
        part.unlink()


@contextmanager
def _room(place: Path, needed: int) -> Iterator[None]:
    """A full disk as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(_full(place, needed, shutil.disk_usage(_there(place)).free)) from None


def _there(place: Path) -> Path:
    return next(folder for folder in place.parents if folder.is_dir())


def _batches(
    encoder: VisionEncoder, pictures: Sequence[PictureTurns], batch_size: int
) -> Iterator[tuple[int, dict[str, Tensor | str]]]:
    """Pixels, or the reason why there are none, batch by batch; the next batch is decoded meanwhile."""

    def open_one(turns: PictureTurns) -> Tensor | str:
        try:
            return encoder.transform(turns.image.open())
        except BadPicture as error:
            return error.reason

    chunks = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
    with ThreadPoolExecutor(max_workers=max(1, min(8, cpu_count()))) as pool:
        ahead: list[Future[Tensor | str]] = [
            pool.submit(open_one, turns) for turns in (chunks[0] if chunks else ())
        ]
        done = 0
        for index, chunk in enumerate(chunks):
            current, following = ahead, chunks[index + 1] if index + 1 < len(chunks) else ()
            ahead = [pool.submit(open_one, turns) for turns in following]
            done += len(chunk)
            yield (
                done,
                {turns.image_id: future.result() for turns, future in zip(chunk, current, strict=True)},
            )


@torch.inference_mode()
def _encode(encoder: VisionEncoder, pixels: Tensor, dtype: str) -> Tensor:
    device = next(encoder.parameters()).device
    features = encoder(pixels.to(device)).to(pick_dtype(dtype)).cpu().contiguous()
    if not bool(torch.isfinite(features).all()):
        raise UserError(
            f"Features of {encoder.name!r} are not finite in {dtype}; choose bfloat16 or float32 for the "
            "feature "
            "cache, or look at the encoder's weights."
        )
    return features


def _full(place: Path, needed: int, free: int) -> str:
    return (
        f"The disk is full: the features need {needed / 1e6:,.0f} MB in {place.parent}, {free / 1e6:,.0f} MB "
        "are free. "
        "Free some, use fewer tokens (encoder.tokens), or go without the cache (--no-feature-cache). Nothing "
        "half-written was kept."
    )
