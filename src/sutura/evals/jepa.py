"""The three forms of VL-JEPA behind one command: the preset's `form` says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from sutura.core.config import apply_overrides, read_preset
from sutura.core.errors import UserError
from sutura.core.registry import suggest


class Form(Protocol):
    """What a form's module has."""

    def train(
        self, values: Mapping[str, Any], *, fresh: bool, resume: bool, out: Path | None, command: str
    ) -> str:
        """Train and score as the resolved values say; a finished run is not trained again.

        Args:
            values: of the form's config.
            fresh: remove what an unfinished run of this config left, and begin anew.
            resume: refuse to begin anew; without either, a run that was stopped goes on.
            out: also write the figures there.
            command: for the record.

        Returns:
            A report in Markdown, the run's folder in it.
        """
        ...


#: The `form` of a preset -> its module.
FORMS = {
    "align": "sutura.evals.jepa_align",
    "conditioned": "sutura.evals.jepa_conditioned",
    "answer": "sutura.evals.jepa_answer",
}


def train(
    preset: str, overrides: Sequence[str] = (), *, fresh: bool, resume: bool, out: Path | None, command: str
) -> str:
    """Train the form that a preset names, and score it.

    Raises:
        UserError: no such preset or form, `fresh` with `resume`, or values that do not fit.
    """
    if fresh and resume:
        raise UserError("--fresh begins anew and --resume goes on; give one of them.")
    values = apply_overrides(read_preset(preset), overrides)
    name = values.pop("form", None)
    if name not in FORMS:
        raise UserError(
            f"Preset {preset!r} has form={name!r}. {suggest(str(name), FORMS)} (`sutura pretrain` takes pretrain/…, "
            "`sutura compare` takes stitch/…)."
        )
    form = cast(Form, import_module(FORMS[name]))
    return form.train(values, fresh=fresh, resume=resume, out=out, command=command)


def evaluate(models: Sequence[str], data: str, overrides: Sequence[str] = (), *, out: Path | None) -> str:
    """Retrieval of several models on one set, as a table."""
    from sutura.evals.retrieval_run import retrieval_table

    return retrieval_table(models, data, overrides, out=out)
