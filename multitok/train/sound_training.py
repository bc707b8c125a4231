"""The loop of a sound model's training: begin or resume, step, measure, keep states, stop. This module imports torch.

    run.json         what the outcome depends on: what was asked for, and how many steps were chosen
    log.jsonl        a line of means every few steps, and one for each measurement
    states/          see `multitok.train.state_files`

One process. What a trainer does at a step is to follow from its state alone, so that a run that was killed and resumed
ends with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from multitok.errors import JobError
from multitok.train.live_view import has_tensorboard
from multitok.train.options import TrainingOptions
from multitok.train.run_folder import RunFolder
from multitok.train.sound_watch import SoundWatch
from multitok.train.state_files import StateFiles

LOG_EVERY = 25
# A measurement counts as better from this share of the loss on.
LEAST_GAIN = 1e-3
# Speed is measured over so many steps, after as many to warm up; a tenth of the time is for what is not a step.
TIMED_STEPS, STEPS_SHARE, LEAST_STEPS = 4, 0.9, 10


class SoundTrainer(Protocol):
    """What is trained, with its optimisers and schedule."""

    step_index: int
    steps: int

    def step(self) -> dict[str, float]:
        """One optimiser step, and what it measured, "loss" among it."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs: tensors and plain values, nested."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on where another trainer with the same arguments was."""


Trainer = TypeVar("Trainer", bound=SoundTrainer)


class SoundRun:
    """One run and its folder.

    Args:
        folder: Of the run.
        asked: JSON values that the outcome depends on.
        options: What the user chose; part of what was asked for.
        steps: Where the options say neither steps nor minutes.
        show: As for `SoundWatch`.
    """

    def __init__(
        self,
        folder: Path,
        asked: Mapping[str, Any],
        options: TrainingOptions,
        *,
        steps: int,
        show: bool | None = None,
    ) -> None:
        self.folder = RunFolder(folder)
        self._asked = {**asked, "options": options.to_json()}
        self._options, self._default_steps, self._show = options, steps, show
        self._states = StateFiles(folder / "states")
        self._began, self._seconds_before = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """All time from the call on, over all resumptions."""
        return self._seconds_before + time.monotonic() - self._began

    def open(self, *, resume: bool) -> None:
        """Begin the run, or see that it is the one that was begun.

        Args:
            resume: Go on with it.

        Raises:
            JobError: There is a run already, or none, or it was begun with other data or options.
        """
        if not resume:
            self.folder.begin({**self._asked, "steps": None})
            return
        known = self.folder.read_run()
        for key, value in self._asked.items():
            if known.get(key) != value:
                raise JobError(
                    f"the run in {self.folder.path} was begun with {_difference(key, known.get(key), value)}: "
                    "resume it with the same data and options, or begin a new run"
                )

    def train(self, make: Callable[[int], Trainer], measure: Callable[[Trainer], dict[str, float]]) -> Trainer:
        """Train to the end.

        Args:
            make: A new trainer for a schedule of so many steps; the same each time.
            measure: Quality on held-out sound, by name; "loss" among it decides about stopping early. An empty one
                says that there is nothing to measure on.

        Returns:
            The trainer after its last step.

        Raises:
            JobError: The training diverged.
            CheckpointError: The state to go on from is damaged.
        """
        run = self.folder.read_run()
        if run["steps"] is None:
            run["steps"] = self._num_steps(make)
            self.folder.write_run(run)
        trainer, options = make(run["steps"]), self._options
        wanted = options.tensorboard == "on" or (options.tensorboard == "auto" and has_tensorboard())
        files = self.folder.path / "tensorboard" if wanted else None
        with SoundWatch(steps=trainer.steps, tensorboard=files, show=self._show) as watch:
            best, since = self._load(trainer, watch)
            sums: dict[str, float] = {}
            count = 0
            while trainer.step_index < trainer.steps and (options.patience is None or since < options.patience):
                figures = trainer.step()
                step, at_end = trainer.step_index, trainer.step_index == trainer.steps
                watch.step(step, figures)
                sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
                count += 1
                if step % LOG_EVERY == 0 or at_end:
                    means = {name: value / count for name, value in sums.items()}
                    watch.record(step, means)
                    self.folder.log({"step": step, **means, "seconds": round(self.seconds, 3)})
                    sums, count = {}, 0
                if (step % options.eval_every == 0 or at_end) and (measured := measure(trainer)):
                    watch.measured(step, measured)
                    self.folder.log({"step": step, "held_out": measured, "seconds": round(self.seconds, 3)})
                    gained = measured["loss"] < best * (1 - LEAST_GAIN)
                    best, since = (measured["loss"], 0) if gained else (best, since + 1)
                is_enough = options.patience is not None and since >= options.patience
                if step % options.save_every == 0 or at_end or is_enough:
                    kept = {"best": best, "since": since, "seconds": self.seconds}
                    self._states.save(step, {"trainer": trainer.state_dict(), **kept})
            if trainer.step_index < trainer.steps:
                watch.say(f"stopped at step {trainer.step_index:,}: {since} measurements in a row gained nothing")
        return trainer

    def _load(self, trainer: SoundTrainer, watch: SoundWatch) -> tuple[float, int]:
        state = self._states.load()
        self.folder.forget_after(-1 if state is None else state["trainer"]["step_index"])
        if state is None:
            return float("inf"), 0
        trainer.load_state_dict(state["trainer"])
        self._seconds_before = state["seconds"]
        watch.say(f"resumed at step {trainer.step_index:,} of {trainer.steps:,}")
        return state["best"], state["since"]

    def _num_steps(self, make: Callable[[int], SoundTrainer]) -> int:
        """As asked for; or as many as fit into the time, by the speed of some that are thrown away."""
        if self._options.minutes is None:
            return self._options.steps or self._default_steps
        trial = make(2 * TIMED_STEPS)
        for step in range(2 * TIMED_STEPS):
            if step == TIMED_STEPS:
                started = time.monotonic()
            trial.step()
        each_s = (time.monotonic() - started) / TIMED_STEPS
        left_s = 60 * self._options.minutes - (time.monotonic() - self._began)
        return max(int(STEPS_SHARE * left_s / each_s), LEAST_STEPS)


def _difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
        return ", ".join(f"{key}.{name}={before.get(name)!r} (now {now.get(name)!r})" for name in changed)
    return f"{key}={before!r} (now {now!r})"
