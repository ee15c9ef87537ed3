"""What this installation stands on: versions, threads, accelerators, cache places."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sutura.core.runtime import cpu_count

PACKAGES = (
    "sutura", "torch", "torchvision", "transformers", "peft", "timm", "open_clip_torch", "accelerate", "datasets",
    "safetensors", "huggingface_hub", "polars", "numba",
)  # fmt: skip


def versions() -> dict[str, str]:
    """What a result depends on, by package; a missing one is left out."""
    found = {}
    for name in ("sutura", "torch", "transformers", "peft", "timm", "open_clip_torch", "accelerate"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> str:
    """Processor, cores and system."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit of the code that runs, and whether it was changed since; "no commit" outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        asked = ["git", "-C", str(folder), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--", str(folder.parent)) else ""
        return f"commit {git('rev-parse', '--short', 'HEAD')}{changed}"
    except (OSError, subprocess.SubprocessError):
        return "no commit"


def findings() -> list[dict[str, str]]:
    """Rows of (what, found). No secret is among them: of a Hub token only its presence is told."""
    rows = [("python", platform.python_version()), ("system", f"{platform.system()} {platform.machine()}")]
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "missing: run `make setup`"))
    rows += _hardware()
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    rows += [
        ("Hub cache", f"{home} ({'there' if home.is_dir() else 'not made yet'})"),
        ("Hub token", "set" if os.environ.get("HF_TOKEN") or (home / "token").is_file() else "not set"),
        ("Hub offline", os.environ.get("HF_HUB_OFFLINE", "0")),
        ("runs", str(Path("runs").resolve())),
    ]
    return [{"what": what, "found": found} for what, found in rows]


def _hardware() -> list[tuple[str, str]]:
    import torch

    policy = os.environ.get("OMP_WAIT_POLICY", "not set; PASSIVE keeps waiting threads from spinning")
    rows = [
        ("processors", str(cpu_count())),
        ("torch threads", str(torch.get_num_threads())),
        ("OMP_WAIT_POLICY", policy),
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            rows.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        rows.append(("cuda", "none"))
    rows.append(("mps", "yes" if torch.backends.mps.is_available() else "none"))
    rows.append(("CPU bf16 instructions", "yes" if torch.cpu._is_avx512_bf16_supported() else "no"))
    return rows
