"""`VectorQuantizer`: one learned codebook, one code a vector; and `LookupQuantizer`, what it shares with SimVQ.

N vectors, V codes, D dimensions. A code is the row number of its code vector. This module imports torch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import nn

from multitok.codebook import nearest_code, quantize_straight_through
from multitok.errors import ShapeError, SpecError
from multitok.quantize.gradients import rotate, straight_through, unit_rows
from multitok.quantize.learning import learn_codes, start_codebook
from multitok.quantize.quantizer import Quantizer, QuantizerOutput, check_positive, check_share, mean_square

METRICS = ("l2", "cosine", "dot")


class Lookup(NamedTuple):
    """What a lookup found.

    Args:
        target: [..., D] the vectors, for the metric "cosine" scaled to length 1; with gradients.
        picked: [..., D] their code vectors, with gradients to the codebook where it learns by them.
        codes: [...] int64.
    """

    target: torch.Tensor
    picked: torch.Tensor
    codes: torch.Tensor


class LookupQuantizer(Quantizer):
    """Base of the quantisers that look one code vector up in a table [V, D].

    Args:
        dim: D.
        codebook_size: V.
        metric: "l2", "cosine" or "dot".
        rotation_trick: Gradients by `rotate` instead of straight through.

    Raises:
        SpecError: The metric is unknown, or a size cannot be.
    """

    def __init__(self, dim: int, codebook_size: int, *, metric: str, rotation_trick: bool) -> None:
        super().__init__(dim, (codebook_size,))
        if metric not in METRICS:
            raise SpecError(f"metric={metric!r}: give one of {', '.join(METRICS)}")
        self.metric, self.rotation_trick = metric, rotation_trick

    @abstractmethod
    def code_vectors(self) -> torch.Tensor:
        """What the codes stand for: [V, D] float32, differentiable where the codebook learns by gradients."""

    @property
    @abstractmethod
    def learns_by_gradient(self) -> bool:
        """Whether `codebook_loss` moves the codebook."""

    def look_up(self, vectors: torch.Tensor) -> Lookup:
        """Codes and code vectors; in training mode the statistics learn from them.

        Args:
            vectors: [..., D] float32.
        """
        target = unit_rows(vectors) if self.metric == "cosine" else vectors
        if self.training:
            self._start(target.detach())
        picked, codes = quantize_straight_through(vectors.detach(), self.code_vectors(), metric=self.metric)
        if self.training:
            self._learn(target.detach(), codes)
        return Lookup(target, picked, codes)

    def losses(self, found: Lookup, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """commitment_loss and codebook_loss, scalars.

        Args:
            found: What `look_up` gave.
            mask: As for `mean_square`.
        """
        commitment_loss = mean_square(found.target, found.picked.detach(), mask)
        if not self.learns_by_gradient:
            return commitment_loss, torch.zeros_like(commitment_loss)
        return commitment_loss, mean_square(found.picked, found.target.detach(), mask)

    def start_from(self, vectors: torch.Tensor) -> None:
        """Start the codebook from these vectors now, where the quantiser has a start; by default it has none.

        Args:
            vectors: [..., D] of any float dtype, finite: more of them than the first batch has start it better.
        """
        self._check_vectors(vectors)

    def _start(self, target: torch.Tensor) -> None:
        """Before the first lookup in training."""

    def _learn(self, target: torch.Tensor, codes: torch.Tensor) -> None:
        """After each lookup in training."""

    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        found = self.look_up(vectors)
        quantized = (rotate if self.rotation_trick else straight_through)(found.target, found.picked.detach())
        commitment_loss, codebook_loss = self.losses(found)
        return QuantizerOutput(
            quantized, found.codes[..., None], commitment_loss, codebook_loss, torch.zeros_like(commitment_loss)
        )

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        return nearest_code(vectors, self.code_vectors(), metric=self.metric)[..., None]

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        found = self.code_vectors().index_select(0, codes.reshape(-1))
        return found.reshape(*codes.shape[:-1], self.dim)


class VectorQuantizer(LookupQuantizer):
    """One codebook, learned by moving averages or by gradients.

    In training mode a forward pass starts the codebook if it has not been, quantises, and then updates the statistics:
    the same bits on every rank of a process group, and as one process would with the batches of all ranks. With the
    metric "cosine" code vectors have length 1, and the losses and gradients see the vectors scaled to length 1.

    Buffers beside the codebook: counts_ema [V] float64, sums_ema [V, D] float64 (EMA only), started, steps.

    Args:
        dim: D.
        codebook_size: V.
        metric: "l2", "cosine" (largest cosine) or "dot" (largest dot product; a long code vector wins more vectors and
            may take all, so give vectors of even length, or take `IBQ`).
        learning: "ema" moves each code to the mean of its vectors, which takes no codebook_loss; "gradient" makes the
            codebook a parameter that codebook_loss moves.
        decay: Of the averages, in [0, 1]; with "gradient" of the counts only.
        epsilon: Smoothing of the counts, see `ema_codebook`.
        start: "k-means" on the first batch, "random" for normal random numbers, or "given" for a codebook that
            `set_codebook` or `load_state_dict` sets.
        start_passes: Passes of k-means.
        dead_below: A code whose average count is below this share of the mean over all codes is dead; it is revived
            with a vector of the batch, its averages too. 0 revives none.
        rotation_trick: Gradients by the rotation trick instead of straight through.
        sync: Statistics over all ranks where there is a process group; every rank has to run the same passes.
        seed: Of the vectors drawn for the start and for dead codes.

    Raises:
        SpecError: An argument cannot be; the message says which and what is allowed.

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", eq. 1 to 3, appendix A.1; start and
        revival: Zeghidour et al. 2021, "SoundStream", section III-C; "cosine": Yu et al. 2022, "Vector-quantized
        Image Modeling with Improved VQGAN", section 3.2.
    """

    codebook: torch.Tensor
    counts_ema: torch.Tensor
    sums_ema: torch.Tensor
    started: torch.Tensor
    steps: torch.Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        metric: str = "l2",
        learning: str = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        start: str = "k-means",
        start_passes: int = 10,
        dead_below: float = 0.1,
        rotation_trick: bool = False,
        sync: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, codebook_size, metric=metric, rotation_trick=rotation_trick)
        if learning not in ("ema", "gradient"):
            raise SpecError(f'learning={learning!r}: give "ema" or "gradient"')
        if start not in ("k-means", "random", "given"):
            raise SpecError(f'start={start!r}: give "k-means", "random" or "given"')
        if start_passes < 1 or seed < 0:
            raise SpecError(f"start_passes={start_passes}, seed={seed}: give at least 1 pass and a seed of at least 0")
        self.learning, self.start, self.start_passes = learning, start, start_passes
        self.decay, self.epsilon = check_share("decay", decay), check_positive("epsilon", epsilon)
        self.dead_below, self.sync, self.seed = check_share("dead_below", dead_below), sync, seed
        values = torch.randn(codebook_size, dim, dtype=torch.float32)
        values = unit_rows(values) if metric == "cosine" else values
        if learning == "gradient":
            self.codebook = nn.Parameter(values)
        else:
            self.register_buffer("codebook", values)
        self.register_buffer("counts_ema", torch.ones(codebook_size, dtype=torch.float64))
        averaged = values.double() if learning == "ema" else torch.empty(0, dim, dtype=torch.float64)
        self.register_buffer("sums_ema", averaged, persistent=learning == "ema")
        self.register_buffer("started", torch.tensor(start != "k-means"))
        self.register_buffer("steps", torch.tensor(0))

    @property
    def learns_by_gradient(self) -> bool:
        """Whether `codebook_loss` moves the codebook."""
        return self.learning == "gradient"

    def code_vectors(self) -> torch.Tensor:
        """What the codes stand for, [V, D] float32."""
        # Averages keep unit code vectors themselves; an optimiser does not.
        return unit_rows(self.codebook) if self.metric == "cosine" and self.learns_by_gradient else self.codebook

    @torch.no_grad()
    def set_codebook(self, codebook: torch.Tensor) -> None:
        """Take this codebook, for instance one of `multitok.train`'s k-means, and forget all statistics.

        Args:
            codebook: [V, D] of any float dtype, finite.

        Raises:
            ShapeError: Not a float tensor [V, D].
            SpecError: A value is NaN or infinite.
        """
        if not isinstance(codebook, torch.Tensor) or codebook.shape != self.codebook.shape:
            given = list(codebook.shape) if isinstance(codebook, torch.Tensor) else type(codebook).__name__
            raise ShapeError(f"codebook given as {given}: give a float tensor {list(self.codebook.shape)}")
        values = codebook.to(self.codebook)
        if not bool(values.isfinite().all()):
            raise SpecError("the codebook holds NaN or infinity: its training failed")
        self.codebook.copy_(unit_rows(values) if self.metric == "cosine" else values)
        self.counts_ema.fill_(1)
        if len(self.sums_ema):
            self.sums_ema.copy_(self.codebook)
        self.started.fill_(True)
        self.steps.zero_()

    @torch.no_grad()
    def start_from(self, vectors: torch.Tensor) -> None:
        """Start the codebook anew by k-means on these vectors, of all ranks where `sync`.

        Args:
            vectors: [..., D] of any float dtype, finite: more of them than the first batch has start it better.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
        """
        self._check_vectors(vectors)
        self.started.fill_(False)
        rows = vectors.detach().float()
        self._run_start(unit_rows(rows) if self.metric == "cosine" else rows)

    def usage(self) -> float:
        """Share of the codes that are not dead, by the averages of training."""
        return 1 - len(self.dead_codes()) / self.codebook_sizes[0]

    def perplexity(self) -> float:
        """exp of the entropy of the codes' average frequencies in training: how many even codes would carry as much."""
        share = self.counts_ema / self.counts_ema.sum()
        return float(torch.special.entr(share).sum().exp())

    def dead_codes(self) -> torch.Tensor:
        """Codes whose average count is below `dead_below` of the mean, or 0 where that is 0: [n] int64, ascending."""
        dead = self.counts_ema < self.dead_below * self.counts_ema.mean()
        return (dead | (self.counts_ema == 0)).nonzero()[:, 0]

    def extra_repr(self) -> str:
        """What `print` shows of this module."""
        return f"dim={self.dim}, codebook_size={self.codebook_sizes[0]}, metric={self.metric}, learning={self.learning}"

    def _start(self, target: torch.Tensor) -> None:
        if self.start == "k-means":
            self._run_start(target)

    def _run_start(self, target: torch.Tensor) -> None:
        with torch.no_grad():
            start_codebook(
                target, self.codebook.detach(), self.counts_ema, self.sums_ema, self.started,
                self.metric, self.start_passes, self.seed, self.sync,
            )  # fmt: skip

    def _learn(self, target: torch.Tensor, codes: torch.Tensor) -> None:
        with torch.no_grad():
            learn_codes(
                target, codes, self.codebook.detach(), self.counts_ema, self.sums_ema, self.steps,
                self.metric, self.decay, self.epsilon, self.dead_below, self.seed, self.sync,
            )  # fmt: skip
