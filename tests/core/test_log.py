"""Metrics are one JSON object a line, and a resumed log holds no step twice."""

from __future__ import annotations

import json

from sutura.core.log import MetricsLog, progress_bars, read_metrics, say


def steps(path):
    return [row["step"] for row in read_metrics(path)]


def test_rows_are_written_at_once(tmp_path):
    log = MetricsLog(tmp_path / "deep" / "m.jsonl")
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": None, "evaluation": {"a": 1}})
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "evaluation": {"a": 1}}]


def test_a_new_log_starts_empty_and_a_resumed_one_drops_what_came_after(tmp_path):
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path)
    for step in range(1, 6):
        log.write(step, {"loss": 1 / step})
    before = path.read_text().splitlines()
    MetricsLog(path, resume_at=3).write(4, {"loss": 9.0})
    assert steps(path) == [1, 2, 3, 4]
    assert path.read_text().splitlines()[:3] == before[:3]
    MetricsLog(path)
    assert path.read_text() == ""


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert steps(path) == [1, 2]
    MetricsLog(path, resume_at=2).write(3, {})
    assert steps(path) == [1, 2, 3]


def test_what_is_said_goes_to_stderr_as_it_is(capsys):
    say("[bold] is no markup, data stays on stdout")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[bold] is no markup" in err


def test_progress_counts():
    with progress_bars() as bars:
        task = bars.add_task("training", total=3, note="loss 1.0")
        bars.advance(task, 2)
        assert bars.tasks[0].completed == 2


def test_the_eta_is_right_when_workers_finish_in_pairs():
    """Fault: two cells a moment apart, every 90 seconds, left "0.1 min" for nine that followed."""
    now = 0.0
    bars = progress_bars()
    bars.get_time = lambda: now
    task = bars.add_task("cells", total=16, note="")
    for second in (90, 91, 180, 181, 270, 271):
        now = float(second)
        bars.advance(task)
    left = bars.tasks[0].time_remaining
    assert 300 < left < 500, "ten of sixteen are left, at two in 90 seconds"
