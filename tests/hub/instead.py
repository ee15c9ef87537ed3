"""The Hub's stand-in in the Hub's place: another address, a cache of its own, and no waiting between tries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.stand_in import StandIn, running


@contextmanager
def instead_of_the_hub(folder: Path) -> Iterator[StandIn]:
    """Until the block ends, huggingface_hub asks a stand-in and keeps its cache in a folder."""
    from huggingface_hub import constants, utils

    with pytest.MonkeyPatch.context() as patch, running() as hub:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "HF_REPO_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_HOME", str(folder))
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        values: dict[str, Any] = {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in values.items():
            patch.setattr(constants, name, value, raising=False)
        nap = time.sleep
        patch.setattr(time, "sleep", lambda seconds: nap(min(seconds, 0.02)))
        utils.close_session()
        yield hub
        utils.close_session()


@contextmanager
def unplugged() -> Iterator[None]:
    """HF_HUB_OFFLINE, as if it had been set when the program began."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield
