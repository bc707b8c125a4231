"""The loop of a training run: begin or resume, step, measure, keep states, stop, freeze. This module imports torch.

What the outcome depends on is in run.json and in the states; how fast it goes and who watches is not. The first rank
writes; the others only step.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from multitok import __version__
from multitok.errors import InputError, JobError
from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.freeze import freeze
from multitok.train.autoencoder import AutoencoderTrainer
from multitok.train.autoencoder_card import card_of, tokenizer_of
from multitok.train.autoencoder_origin import model_from
from multitok.train.autoencoder_start import fit_start
from multitok.train.crop_pool import BadItem, CropPool, HeldOut
from multitok.train.devices import machine, takes_bf16
from multitok.train.heldout import MIDDLE, Measured, measure_floats, measure_integers, middle
from multitok.train.items import Items
from multitok.train.live_view import has_tensorboard
from multitok.train.options import TrainingOptions
from multitok.train.presets import Preset
from multitok.train.ranks import Ranks
from multitok.train.run_folder import RunFolder
from multitok.train.step_meter import StepMeter
from multitok.train.train_autoencoder import TrainingResult
from multitok.train.watch import Watch

LOG_EVERY = 25
# A tenth or less of the items is held out, at most so many.
MOST_HELD_OUT = 8
# A measurement counts as better from here, dB.
LEAST_GAIN = 0.01
# Speed is measured over so many steps, after as many to warm up; a tenth of the time is for what is not a step.
TIMED_STEPS, STEPS_SHARE, LEAST_STEPS = 6, 0.9, 10
# Below so many positions a code vector, codebooks learn their data by heart.
VECTORS_PER_ROW = 8
# Runs of fewer minutes than this have a shorter start, in proportion.
SHORT_RUN_MINUTES = 30
# Part of a full learning rate for what starts from a trained autoencoder.
FINE_TUNING_SHARE = 0.3


class Training:
    """One run, on this rank.

    Args:
        items: What to train on.
        held_out: What to measure on; None takes some of the items.
        folder: The run folder.
        preset: Shape and length.
        options: What the user chose.
        device: Where the nets run.
        ranks: Who trains together.
        label: The preset's name, for the card.
        command: For the card.
        began: When the run was called, by `time.monotonic`.
        show: As for `Watch`.
    """

    def __init__(
        self,
        items: Items,
        held_out: Items | None,
        folder: Path,
        preset: Preset,
        options: TrainingOptions,
        *,
        device: torch.device,
        ranks: Ranks,
        label: str,
        command: str,
        began: float,
        show: bool | None,
    ) -> None:
        self._items, self._held_items, self._preset, self._options = items, held_out, preset, options
        self._folder, self._device, self._ranks = RunFolder(folder), device, ranks
        self._label, self._command, self._began, self._show = label, command, began, show
        self._run: dict[str, Any] = {}
        self._held: list[HeldOut] = []
        self._middles: list[HeldOut] = []
        self._best, self._since, self._seconds_before = float("-inf"), 0, 0.0

    def run(self, *, resume: bool, start_from: str | None, name: str | None) -> TrainingResult | None:
        """Train to the end; arguments as for `train_autoencoder`."""
        self._preset = _with_short_start(self._preset, self._options.minutes)
        known = start_from is None or (resume and self._folder.has_state())
        model = None if known else model_from(str(start_from), self._preset)
        if model is not None:
            self._preset = _with_shape(self._preset, model)
        self._open(resume, start_from)
        with self._pool() as pool:
            self._hold_out(pool)
            patch = self._preset.autoencoder.patch
            self._middles = [HeldOut(name, middle(levels, MIDDLE, patch)) for name, levels in self._held]
            with self._watch() as watch:
                trainer = self._trainer(model, pool, watch)
                self._train(trainer, pool, watch)
                return self._finish(trainer, watch, name) if self._ranks.is_first else None

    def _open(self, resume: bool, start_from: str | None) -> None:
        """Write run.json, or read it and see that it is the same run."""
        asked = {
            "preset": self._preset.to_json(),
            "options": self._options.to_json(),
            "data": {"items": len(self._items), "digest": self._items.digest()},
            "held_out": None if self._held_items is None else self._held_items.digest(),
            "start_from": None if start_from is None else Path(start_from).name,
            "ranks": self._ranks.count,
        }
        if not resume:
            precision = self._options.precision
            if precision == "auto":
                precision = "bf16" if takes_bf16(self._device) else "fp32"
            versions = {"multitok": __version__, "torch": str(torch.__version__)}
            self._run = {**asked, "precision": precision, "steps": None, **versions}
            if self._ranks.is_first:
                self._folder.begin(self._run)
            self._run = self._ranks.from_first(self._run)
            return
        self._run = self._folder.read_run()
        for key, value in asked.items():
            if key == "preset" and start_from is not None:
                value = {**self._preset.to_json(), "autoencoder": self._run["preset"]["autoencoder"]}
            if self._run[key] != value:
                raise JobError(
                    f"the run in {self._folder.path} was begun with {_difference(key, self._run[key], value)}: "
                    "resume it with the same data and options, or begin a new run"
                )
        self._preset = Preset.from_json(self._run["preset"])

    def _pool(self) -> CropPool:
        return CropPool(
            self._items,
            self._preset,
            batch=self._options.batch or self._preset.batch,
            seed=self._options.seed,
            rank=self._ranks.rank,
            world=self._ranks.count,
            workers=self._options.workers,
            report=self._reject,
        )

    def _reject(self, bad: BadItem) -> None:
        # Ranks read different items; each reports its own, in whole lines.
        self._folder.quarantine(*bad)

    def _hold_out(self, pool: CropPool) -> None:
        if self._held_items is not None:
            with CropPool(self._held_items, self._preset, batch=1, seed=0, report=self._reject) as separate:
                self._held = separate.whole()
            if not self._held:
                raise InputError("none of the held-out items can be read: the quarantine file says why")
            return
        wanted = self._options.held_out
        if wanted is None:
            wanted = min(max(len(self._items) // 10, 1), MOST_HELD_OUT)
        self._held = pool.hold_out(wanted)

    def _watch(self) -> Watch:
        wanted = self._options.tensorboard
        write = self._ranks.is_first and (wanted == "on" or (wanted == "auto" and has_tensorboard()))
        unit = "Mvoxel/s" if self._preset.modality == "volume" else "MPx/s"
        folder = self._folder.path / "tensorboard" if write else None
        return Watch(unit=unit, tensorboard=folder, show=self._show if self._ranks.is_first else False)

    def _trainer(self, model: VqAutoencoder | None, pool: CropPool, watch: Watch) -> AutoencoderTrainer:
        """The trainer at the state to go on from."""
        found = self._folder.load_state() if self._run["steps"] is not None else None
        if found is not None:
            trainer = self._new_trainer(VqAutoencoder(self._preset.autoencoder), self._run["steps"])
            state, more = found
            trainer.load_state_dict(state)
            self._best, self._since, self._seconds_before = more["best"], more["since"], more["seconds"]
            if self._ranks.is_first:
                self._folder.forget_after(trainer.step_index)
                watch.say(f"resumed at step {trainer.step_index:,} of {trainer.steps:,}")
            return trainer
        if self._ranks.is_first:
            self._folder.forget_after(-1)
            watch.say(f"{len(self._items):,} items, {len(self._held)} of them held out; {machine(self._device)}")
        if model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._options.seed)
                model = VqAutoencoder(self._preset.autoencoder)
            if self._ranks.is_first:
                crops: NDArray[Any] = pool.start(self._preset.start_crops)
                watch.say(f"start: fitting it to {len(crops):,} crops")
                self._warn_of_few(len(crops), watch)
                fit_start(
                    model,
                    crops,
                    seed=self._options.seed,
                    iterations=self._preset.kmeans_iterations,
                    context_steps=self._preset.context_steps,
                    dims=self._preset.start_dims or None,
                    report=lambda text: watch.say(f"start: {text}"),
                    autocast=self._run["precision"] == "bf16" and takes_bf16(torch.device("cpu")),
                )
                del crops
        model = model.to(self._device)
        self._ranks.copy_first(model)
        steps = self._options.steps or self._preset.steps
        if self._options.minutes is not None:
            steps = self._affordable(model, pool)
        self._run["steps"] = self._ranks.from_first(steps)
        trainer = self._new_trainer(model, self._run["steps"])
        if self._ranks.is_first:
            self._folder.write_run(self._run)
            self._measure(trainer, watch)
            self._save(trainer)
        return trainer

    def _warn_of_few(self, num_crops: int, watch: Watch) -> None:
        shape = self._preset.autoencoder
        positions = num_crops
        for side, step in zip(self._preset.crop, shape.patch, strict=True):
            positions *= side // step
        rows = sum(shape.tables_of(k) * size for k, size in enumerate(shape.codebook_sizes))
        if positions < VECTORS_PER_ROW * rows:
            watch.say(
                f"few data: {positions:,} positions for {rows:,} code vectors, which will fit these items and no "
                "others; add data, or start from a trained tokenizer by --from (start_from=)"
            )

    def _new_trainer(self, model: VqAutoencoder, steps: int) -> AutoencoderTrainer:
        rate = self._options.learning_rate
        if rate is None:
            started = self._run["start_from"] is not None
            rate = self._preset.learning_rate * (FINE_TUNING_SHARE if started else 1.0)
        return AutoencoderTrainer(
            model.to(self._device),
            steps=steps,
            seed=self._options.seed,
            learning_rate=rate,
            dropout=self._preset.dropout,
            only_decoder=self._preset.trains == "decoder",
            level_weights=self._preset.level_weights,
            autocast=self._run["precision"] == "bf16",
            ranks=self._ranks,
        )

    def _affordable(self, model: VqAutoencoder, pool: CropPool) -> int:
        """How many steps fit into the rest of the time, by the speed of some that are thrown away."""
        trial = self._new_trainer(copy.deepcopy(model), TIMED_STEPS * 2)
        for step in range(2 * TIMED_STEPS):
            if step == TIMED_STEPS:
                started = time.monotonic()
            trial.step(torch.from_numpy(pool.batch(step)).to(self._device))
        seconds = (time.monotonic() - started) / TIMED_STEPS
        assert self._options.minutes is not None
        left = 60 * self._options.minutes - (time.monotonic() - self._began)
        return max(int(STEPS_SHARE * left / seconds), LEAST_STEPS)

    def _train(self, trainer: AutoencoderTrainer, pool: CropPool, watch: Watch) -> None:
        options, world = self._options, self._ranks.count
        values = (options.batch or self._preset.batch) * world
        for side in self._preset.crop:
            values *= side
        meter = StepMeter(self._preset.autoencoder.codebook_sizes, values, trainer.steps)
        while trainer.step_index < trainer.steps and not self._is_enough():
            levels = torch.from_numpy(pool.batch(trainer.step_index)).to(self._device)
            meter.add(trainer.step(levels))
            step, at_end = trainer.step_index, trainer.step_index == trainer.steps
            if self._ranks.is_first:
                moment = meter.moment(step)
                watch.step(moment)
                if step % LOG_EVERY == 0 or at_end:
                    watch.record(moment)
                    self._folder.log({**moment._asdict(), "seconds": round(self._seconds(), 3)})
                    meter.forget()
                if step % options.eval_every == 0 or at_end:
                    self._measure(trainer, watch)
                    meter.skip()
            if options.patience is not None and step % options.eval_every == 0:
                self._best, self._since = self._ranks.from_first((self._best, self._since))
            if self._ranks.is_first and (step % options.save_every == 0 or at_end or self._is_enough()):
                self._save(trainer)
                meter.skip()
        if self._ranks.is_first and self._is_enough():
            watch.say(f"stopped at step {trainer.step_index:,}: {self._since} measurements in a row gained nothing")

    def _is_enough(self) -> bool:
        return self._options.patience is not None and self._since >= self._options.patience

    def _measure(self, trainer: AutoencoderTrainer, watch: Watch) -> None:
        if not self._held:
            return
        if self._preset.trains == "decoder":
            measured = measure_integers(freeze(copy.deepcopy(trainer.averaged).cpu()), self._middles)
        else:
            measured = measure_floats(trainer.averaged, self._middles, autocast=self._run["precision"] == "bf16")
        step, score = trainer.step_index, sum(measured.psnr) / len(measured.psnr)
        gained = score > self._best + LEAST_GAIN
        self._best, self._since = (score, 0) if gained else (self._best, self._since + 1)
        watch.measured(step, measured)
        self._picture(f"{step:08d}", measured)
        self._folder.log({"step": step, "held_out_psnr": measured.psnr, "seconds": round(self._seconds(), 3)})

    def _picture(self, name: str, measured: Measured) -> None:
        from PIL import Image

        folder = self._folder.path / "pictures"
        folder.mkdir(exist_ok=True)
        Image.fromarray(measured.pictures).save(folder / f"{name}.png")

    def _save(self, trainer: AutoencoderTrainer) -> None:
        more = {"best": self._best, "since": self._since, "seconds": self._seconds()}
        self._folder.save_state(trainer.state_dict(), more)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _finish(self, trainer: AutoencoderTrainer, watch: Watch, name: str | None) -> TrainingResult:
        trained = trainer.averaged.cpu()
        self._folder.save_trained(trained, self._preset.autoencoder.to_json())
        frozen = freeze(trained)
        measured = measure_integers(frozen, self._held) if self._held else None
        if measured is not None:
            self._picture("final", measured)
            watch.say(f"as integers, held-out items whole: {', '.join(f'{each:.2f}' for each in measured.psnr)} dB")
        psnr = [] if measured is None else measured.psnr
        card = card_of(
            self._run,
            self._folder,
            steps=trainer.step_index,
            psnr=psnr,
            held_out=[item.name for item in self._held],
            separate=self._held_items is not None,
            label=self._label,
            command=self._command,
            seconds=self._seconds(),
            machine=machine(self._device),
        )
        return TrainingResult(tokenizer_of(frozen, self._preset.modality, name), card, trainer.step_index, psnr)


def _with_short_start(preset: Preset, minutes: float | None) -> Preset:
    """A preset whose start leaves a short run time for its steps."""
    share = 1.0 if minutes is None else min(minutes / SHORT_RUN_MINUTES, 1.0)
    crops, steps = (int(share * count) for count in (preset.start_crops, preset.context_steps))
    least_crops, least_steps = min(preset.start_crops, 64), min(preset.context_steps, 50)
    return replace(preset, start_crops=max(crops, least_crops), context_steps=max(steps, least_steps))


def _with_shape(preset: Preset, model: VqAutoencoder) -> Preset:
    if model.config.num_codebooks != preset.autoencoder.num_codebooks:
        preset = replace(preset, level_weights=(), start_dims=())  # which are by codebook
    return replace(preset, autoencoder=model.config)


def _difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
        return ", ".join(f"{key}.{name}={before.get(name)!r} (now {now.get(name)!r})" for name in changed)
    return f"{key}={before!r} (now {now!r})"
