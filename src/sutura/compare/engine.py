"""Running the missing cells: in this process, or several at a time in processes of their own.

A small language model does not fill two processors with one training step, while two cells side by side do. Each
worker has its own share of the threads: two torch processes that both use all processors slow each other many times
over, because waiting threads spin.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sutura.compare.cell import Inputs, run_cell
from sutura.compare.config import CompareConfig
from sutura.compare.grid import Cell
from sutura.core.errors import UserError
from sutura.core.log import console, progress_bars, say
from sutura.core.processes import here
from sutura.core.runtime import cpu_count, pick_device, set_threads
from sutura.data.samples import VqaData
from sutura.encoders.cache import Store

REFRESH = 0.3
"""Seconds between looks at the workers' messages."""


@dataclass(frozen=True)
class Job:
    """A cell with what it needs, in a form that travels to another process.

    Args:
        stores: feature stores of the cell's encoder; opened again (memory-mapped) where the job runs.
        inputs: without patches and without pictures.
    """

    cell: Cell
    stores: tuple[Store, ...]
    inputs: Inputs


def run_jobs(
    jobs: Sequence[Job], config: CompareConfig, on_cell: Callable[[Cell], None] | None = None
) -> None:
    """Run every job; the first one that fails stops the rest, and what is finished stays finished.

    A cell that another process is at work on goes to the end of the queue and is waited for there. `on_cell` is told
    of each cell when it is done, in this process.
    """
    if not jobs:
        return
    # The processes of a run started as several work on one cell together.
    workers = 0 if here().several else min(config.engine.workers, len(jobs))
    threads = config.engine.threads or (max(1, cpu_count() // workers) if workers else None)
    with progress_bars() as bars:
        overall = bars.add_task("cells", total=len(jobs), note="")
        if workers == 0:
            set_threads(config.engine.threads)
            _run_here(jobs, config, bars, overall, on_cell)
        else:
            _run_pool(jobs, config, workers, threads, bars, overall, on_cell)


def _run_here(
    jobs: Sequence[Job],
    config: CompareConfig,
    bars: Any,
    overall: Any,
    on_cell: Callable[[Cell], None] | None,
) -> None:
    waiting = deque((job, False) for job in jobs)
    while waiting:
        job, wait = waiting.popleft()
        task = bars.add_task(job.cell.label, total=None, note="starting")

        def report(what: str, done: int, total: int, task: Any = task) -> None:
            bars.update(task, completed=done, total=total, note=what)

        done = _run(job, config, report, wait=wait)
        bars.remove_task(task)
        if done:
            bars.advance(overall)
            _tell(job, bars, overall)
            if on_cell is not None:
                on_cell(job.cell)
        else:
            _tell_busy(job)
            waiting.append((job, True))


def _run_pool(
    jobs: Sequence[Job],
    config: CompareConfig,
    workers: int,
    threads: int | None,
    bars: Any,
    overall: Any,
    on_cell: Callable[[Cell], None] | None,
) -> None:
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    with (
        _environment(threads),
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(messages, threads)) as pool,
    ):
        running: dict[Future[bool], Job] = {pool.submit(_work, job, config, False): job for job in jobs}
        tasks: dict[str, Any] = {}
        try:
            while running:
                finished, _ = wait(running, timeout=REFRESH, return_when=FIRST_COMPLETED)
                for name, what, done, total in _drain(messages):
                    if name not in tasks:
                        label = next(job.cell.label for job in jobs if job.cell.hash == name)
                        tasks[name] = bars.add_task(label, total=total, note=what)
                    if tasks[name] is not None:
                        bars.update(tasks[name], completed=done, total=total, note=what)
                for future in finished:
                    job = running.pop(future)
                    if not _result(future):
                        _tell_busy(job)
                        running[pool.submit(_work, job, config, True)] = job
                        continue
                    task, tasks[job.cell.hash] = tasks.get(job.cell.hash), None
                    if task is not None:
                        bars.remove_task(task)
                    bars.advance(overall)
                    _tell(job, bars, overall)
                    if on_cell is not None:
                        on_cell(job.cell)
        except BaseException:
            alive = list((pool._processes or {}).values())  # shutdown forgets them
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in alive:
                worker.terminate()
            raise


def _result(future: Future[bool]) -> bool:
    """Whether the cell is done, or what the worker raised; a worker that is gone gets a sentence."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise UserError(
            "A worker was ended from outside, most likely because memory ran out. Finished cells are kept; run the "
            "same command again with engine.workers=1, or with a smaller feed.micro_batch and evaluate.batch."
        ) from None


def _tell(job: Job, bars: Any, overall: Any) -> None:
    """A line a cell where no bars can be drawn, in a log file for one."""
    if console.is_terminal:
        return
    task = next(task for task in bars.tasks if task.id == overall)
    left = "" if task.time_remaining is None else f", about {task.time_remaining / 60:.1f} min left"
    say(
        f"{job.cell.label}: done, {task.completed:.0f} of {task.total:.0f} cells in {task.elapsed / 60:.1f} min{left}"
    )


def _tell_busy(job: Job) -> None:
    say(
        f"{job.cell.label}: another process is at work on this cell ({job.cell.hash}); it is waited for at the end"
    )


_messages: Any = None


def _start(messages: Any, threads: int | None) -> None:
    """First thing in a worker."""
    global _messages
    _messages = messages
    set_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when the process that started it is gone, killed for one: nobody would take its result."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _work(job: Job, config: CompareConfig, wait: bool) -> bool:
    """One job, in a worker."""
    last = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > REFRESH or done == total:
            last = now
            _messages.put((job.cell.hash, what, done, total))

    return _run(job, config, report, wait=wait)


def _run(job: Job, config: CompareConfig, report: Callable[[str, int, int], None], *, wait: bool) -> bool:
    inputs = job.inputs
    if job.stores:
        inputs = replace(inputs, patches=rows_of(job.stores))
    return run_cell(job.cell, config, inputs, str(pick_device(config.engine.device)), report, wait=wait)


def rows_of(stores: Sequence[Store]) -> Callable[[Sequence[str]], Any]:
    """Image ids → patches, from whichever store has the picture."""
    import torch

    home = {name: store for store in reversed(stores) for name in store.image_ids}

    def rows(names: Sequence[str]) -> Any:
        owners = {id(home[name]): home[name] for name in names}
        if len(owners) == 1:
            return next(iter(owners.values())).rows(names)
        return torch.cat([home[name].rows([name]) for name in names])

    return rows


def without_pictures(data: VqaData, known: Collection[str] | None = None) -> VqaData:
    """The questions alone: what a worker needs when the features are cached.

    Args:
        data: with pictures.
        known: image ids that have features; questions about others cannot be asked. None keeps all.
    """
    bare = [
        replace(p, image=_GONE, samples=tuple(replace(sample, image=_GONE) for sample in p.samples))
        for p in data.pictures
        if known is None or p.image_id in known
    ]
    return replace(data, pictures=bare)


class _Gone:
    """Stands where a picture was left behind."""

    def open(self) -> Any:
        raise AssertionError("a worker with cached features asked for a picture")


_GONE = _Gone()


def _drain(messages: Any) -> Iterator[tuple[str, str, int, int]]:
    while True:
        try:
            yield messages.get_nowait()
        except queue.Empty:
            return


@contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """Environment that workers are born with: thread counts, and waiting threads that sleep."""
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        wanted |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
