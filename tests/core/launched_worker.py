"""What a launcher starts, several at a time: `launched_worker.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sutura.core.log import console
from sutura.core.processes import here, leave

if __name__ == "__main__":
    team = here()
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    total = torch.tensor([float(team.rank + 1)])
    torch.distributed.all_reduce(total)
    said = [
        team.rank,
        team.count,
        accelerator.process_index,
        accelerator.num_processes,
        total.item(),
        console.quiet,
    ]
    (Path(sys.argv[1]) / str(team.rank)).write_text(" ".join(map(str, said)))
    leave(0)
