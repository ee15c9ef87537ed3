"""Tables with one question a row and a column map: Parquet, and JSON lines beside a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_bytes
from sutura.data.images import BadPicture, picture_path, read_file
from sutura.data.joined_pictures import join_pictures
from sutura.data.manifest import Entry, Turn, gather, text_of
from sutura.data.samples import Picture, SetAside, VqaData
from sutura.data.sources import VqaSource, check_roles, column, needed
from sutura.data.tables import open_table, picture_at, read_cell

ROLES = (
    *("image", "question", "answers", "image_id", "item_id", "question_type", "choices", "conversation"),
    *("answer_index", "context", "questions"),
)
#: What dialogues call who asks and who answers.
ASKING, ANSWERING = frozenset({"human", "user"}), frozenset({"gpt", "assistant", "model"})


class ColumnMap:
    """Our roles resolved to a file's columns.

    Args:
        source: with its column map; `options.question` is asked in every row where the file holds no questions.
        available: the file's columns.
        class_names: column → names of its classes, for an `answer_index` that is one.

    Raises:
        UserError: a role nobody knows, a column that is not there, or one that is needed and not found.
    """

    def __init__(
        self,
        source: VqaSource,
        available: list[str],
        class_names: Callable[[str], Sequence[str]] = lambda column: (),
    ) -> None:
        check_roles(source, ROLES)
        self.image = "" if source.options.get("images") else needed(source, "image", available, "image")
        self.conversation = column(source, "conversation", available)
        self.questions = column(source, "questions", available)
        self.answer_index = column(source, "answer_index", available)
        self.asked = text_of(source.options.get("question"))
        nested = self.conversation is not None or self.questions is not None
        self.question = self.answers = ""
        if not nested and not self.asked:
            self.question = needed(source, "question", available, "question")
        if not nested and self.answer_index is None:
            self.answers = needed(source, "answers", available, "answers", "answer")
        self.image_id = column(source, "image_id", available, "image_id")
        self.item_id = column(source, "item_id", available, "item_id", "question_id")
        self.context = column(source, "context", available)
        self.choices = column(source, "choices", available, "choices")
        self.classes = class_names(self.answer_index) if self.answer_index else ()
        self.within_type = source.columns.get("question_type", "question_type")
        self.question_type = None
        if self.questions is None:
            self.question_type = column(source, "question_type", available, "question_type")

    def turns(self, get: Callable[[str], Any]) -> list[Turn]:
        """The turns of a row, one unless it holds a dialogue or a list; `get` gives the value of a column."""

        def optional(name: str | None) -> Any:
            return get(name) if name else None

        own = text_of(optional(self.item_id))
        if self.questions is not None:
            return _listed(get(self.questions), self.within_type, own)
        kind = kind_of(self.question_type or "", optional(self.question_type))
        if self.conversation is not None:
            said = dialogue_of(get(self.conversation))
            return [
                Turn(question, (answer,) if answer else (), kind, (), f"{own}.{k}" if own else "")
                for k, (question, answer) in enumerate(said)
            ]
        choices = answers_of(optional(self.choices))
        answers = self._indexed(get, choices) if self.answer_index else answers_of(get(self.answers))
        question = self.asked or text_of(get(self.question))
        if question and (context := text_of(optional(self.context))):
            question = f"{context}\n{question}"
        return [Turn(question, answers, kind, choices, own)]

    def _indexed(self, get: Callable[[str], Any], choices: tuple[str, ...]) -> tuple[str, ...]:
        """The choice, or the class, at the place a row names; nothing where there is none at that place."""
        place = get(str(self.answer_index))
        among = self.classes or choices
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(among):
            return ()
        return (among[place],)


def kind_of(name: str, value: Any) -> str:
    """A question type as text. A column of yes and no gives its own name: `is_simple` is "simple" or "not simple"."""
    if isinstance(value, bool):
        plain = name.removeprefix("is_")
        return plain if value else f"not {plain}"
    return text_of(value)


def _listed(value: Any, kind: str, own: str) -> list[Turn]:
    """Questions of one cell: a list of `{question, answer}`, or the same as lists side by side.

    Raises:
        UserError: a cell of another form.
    """
    rows = value or []
    if isinstance(rows, dict):
        names = list(rows)
        rows = [dict(zip(names, one, strict=True)) for one in zip(*rows.values(), strict=True)]
    found = []
    for k, row in enumerate(rows):
        if not isinstance(row, dict) or "question" not in row or not {"answer", "answers"} & row.keys():
            what = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"A list of questions holds {what}; each needs question and answer.")
        answers = answers_of(row["answers"] if "answers" in row else row["answer"])
        item_id = f"{own}.{k}" if own else ""
        found.append(Turn(text_of(row["question"]), answers, kind_of(kind, row.get(kind)), (), item_id))
    return found


def dialogue_of(value: Any) -> list[tuple[str, str]]:
    """(question, answer) pairs of a dialogue, as the common instruction sets write it.

    Turns are `{from, value}` (LLaVA-Instruct), `{role, content}` (content a text, or a list of parts with texts), or
    `{user, assistant}` (the_cauldron). `<image>` marks and what stands before the first question are left out.

    Raises:
        UserError: a turn of another form.
    """
    said: list[tuple[str, str]] = []
    for turn in value or ():
        if isinstance(turn, dict) and {"user", "assistant"} <= turn.keys():
            said.append((_words(turn["user"]), _words(turn["assistant"])))
            continue
        who, what = ("from", "value") if isinstance(turn, dict) and "from" in turn else ("role", "content")
        if not isinstance(turn, dict) or not {who, what} <= turn.keys():
            found = ", ".join(map(str, turn)) if isinstance(turn, dict) else type(turn).__name__
            raise UserError(
                f"A dialogue's turn holds {found}; it needs from and value, role and content, or user and assistant."
            )
        if turn[who] in ASKING:
            said.append((_words(turn[what]), ""))
        elif turn[who] in ANSWERING and said:
            said[-1] = (said[-1][0], f"{said[-1][1]} {_words(turn[what])}".strip())
    return said


def _words(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    texts = (text_of(part.get("text") if isinstance(part, dict) else part) for part in parts)
    return " ".join(text for text in texts if text).replace("<image>", "").strip()


def answers_of(value: Any) -> tuple[str, ...]:
    """Answers as texts: one value, a list of them, or VQAv2's list of `{answer: …}`; empty ones left out."""
    values = value if isinstance(value, list | tuple) else [value]
    texts = (text_of(v.get("answer") if isinstance(v, dict) else v) for v in values)
    return tuple(text for text in texts if text)


def load_parquet(source: VqaSource) -> VqaData:
    """Parquet with one question a row; rows of one picture, by `image_id` or by its bytes, are joined.

    A picture is encoded bytes, `{bytes, path}` as `datasets` writes it, or a path beside the file; with
    `options.images` it lies in a table of its own.
    """
    table = open_table(source)
    columns = ColumnMap(source, table.columns, table.class_names)
    joined = join_pictures(source, table) if source.options.get("images") else None

    def read(row: int) -> bytes:
        return joined.read(row) if joined is not None else read_cell(table, row, columns.image)

    ids = table.values(columns.image_id) if columns.image_id else None
    if source.turns == "conversation":
        groups = [[row] for row in range(len(table))]
    else:
        groups = _by_id(ids) if ids is not None else _by_content(len(table), read)
    entries = _entries(
        groups,
        ids,
        read=read,
        picture=lambda row: joined.picture(row) if joined else table.picture(row, columns.image),
        turns=lambda row: columns.turns(partial(table.value, row)),
        word="row",
    )
    return replace(gather(source, entries), revision=table.revision)


def load_jsonl(source: VqaSource) -> VqaData:
    """JSON lines, one question each, with picture paths relative to `image_folder` or to the file.

    Lines that are no JSON object are set aside under their line numbers.
    """
    given, *others = source.paths
    if others:
        raise UserError(f"{source.label!r}: one JSON-lines file a source; join several with source: mixture.")
    path = Path(given).expanduser()
    if not path.is_file():
        raise UserError(f"Data source {source.label!r}: no JSON-lines file at {given!r}.")
    folder = Path(source.image_folder).expanduser() if source.image_folder else path.parent
    if not folder.is_dir():
        raise UserError(
            f"Data source {source.label!r}: image_folder {source.image_folder!r} is not a folder."
        )
    aside = SetAside()
    lines = json_lines(path, aside)[: source.first_rows]
    columns = ColumnMap(source, sorted({key for _, values in lines for key in values}))

    def picture(row: int) -> Picture:
        return picture_at(text_of(lines[row][1].get(columns.image)), folder)

    def read(row: int) -> bytes:
        name = text_of(lines[row][1].get(columns.image))
        if not name:
            raise BadPicture("missing", "no path in the line")
        return read_file(picture_path(folder, name))

    ids = [values.get(columns.image_id) for _, values in lines] if columns.image_id else None
    if source.turns == "conversation":
        groups = [[row] for row in range(len(lines))]
    else:
        groups = _by_id(ids if ids is not None else [values.get(columns.image) for _, values in lines])
    entries = _entries(
        groups,
        ids,
        read=read,
        picture=picture,
        turns=lambda row: columns.turns(lines[row][1].get),
        word="line",
        numbers=[number for number, _ in lines],
    )
    return gather(source, entries, also=aside)


def json_lines(path: Path, aside: SetAside) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSON-lines file; lines that are no object are set aside.

    A file named .json that holds one list of objects is read too; its places count as lines.
    """
    if path.suffix == ".json":
        return _read_list(path)
    return object_lines(path, aside)


def object_lines(path: Path, aside: SetAside) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a file with an object a line, whatever its name; other lines are set aside."""
    found = []
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            values = None
        if isinstance(values, dict):
            found.append((number, values))
        else:
            aside.add("not a JSON object", f"line {number}")
    if not found:
        raise UserError(f"{path.name} holds no JSON object in any line.")
    return found


def text_lines(path: Path) -> list[str]:
    """Lines of a text file; "\\n" alone ends one: others that Python takes for an end occur in texts."""
    return path.read_text(encoding="utf-8-sig", errors="replace").split("\n")


def _read_list(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path.name} is not JSON: {error}") from None
    return json_list(path.name, values)


def json_list(name: str, values: Any) -> list[tuple[int, dict[str, Any]]]:
    """Objects of a list with their places. Raises UserError when it is none."""
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        raise UserError(f"{name} is no list of JSON objects; give such a list, or JSON lines.")
    return list(enumerate(values, start=1))


def _by_id(ids: Sequence[Any]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row, value in enumerate(ids):
        key = f"id {value}" if text_of(value) else f"row {row}"
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _by_content(count: int, read: Callable[[int], bytes]) -> list[list[int]]:
    """Rows of the same picture together; a picture that cannot be read stays alone and is judged later."""
    groups: dict[str, list[int]] = {}
    for row in range(count):
        try:
            key = fingerprint_bytes(read(row))
        except BadPicture:
            key = f"row {row}"
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _entries(
    groups: list[list[int]],
    ids: Sequence[Any] | None,
    *,
    read: Callable[[int], bytes],
    picture: Callable[[int], Picture],
    turns: Callable[[int], list[Turn]],
    word: str,
    numbers: Sequence[int] | None = None,
) -> list[Entry]:
    """One entry a group. With an id column each row keeps its own bytes to be compared, so it stays alone
    unless it is the group's only row or repeats the first one's picture."""
    entries = []
    for rows in groups:
        image_id = text_of(ids[rows[0]]) or None if ids is not None else None
        for same in _same_picture(rows, read) if image_id else [rows]:
            where = f"{word} {numbers[same[0]] if numbers else same[0]}"
            told = partial(_turns, turns, same)
            entries.append(Entry(where, picture(same[0]), partial(read, same[0]), told, image_id))
    return entries


def _turns(turns: Callable[[int], list[Turn]], rows: Sequence[int]) -> list[Turn]:
    return [turn for row in rows for turn in turns(row)]


def _same_picture(rows: list[int], read: Callable[[int], bytes]) -> list[list[int]]:
    """The rows of one image_id, divided by what their pictures' bytes really are."""
    if len(rows) == 1:
        return [rows]
    return [[rows[i] for i in group] for group in _by_content(len(rows), lambda i: read(rows[i]))]
