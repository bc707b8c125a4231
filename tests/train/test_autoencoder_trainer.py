"""One training step: codebooks as a slow reference has them, the same bits after a resume, two ranks as one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from numpy.typing import NDArray

from multitok.errors import JobError
from multitok.nets.autoencoder import VqAutoencoder
from multitok.protocol import Modality
from multitok.train.autoencoder import AutoencoderTrainer
from multitok.train.autoencoder_start import fit_start
from multitok.train.ranks import Ranks
from multitok.train.run_folder import RunFolder
from tests.train.autoencoder_runs import TINY

STEPS = 6


def fitted(modality: Modality = Modality.IMAGE) -> VqAutoencoder:
    """The start that every run of these tests has."""
    torch.manual_seed(0)
    model = VqAutoencoder(TINY[modality].autoencoder)
    crops = batches(modality, 1, 12)[0].numpy().astype(np.int16)
    fit_start(model, crops, iterations=2, context_steps=2, autocast=False)
    return model


def batches(modality: Modality, count: int, size: int) -> list[torch.Tensor]:
    """Smooth crops."""
    of = TINY[modality]
    rng = np.random.default_rng(0)
    shape = (count, size, *of.crop, of.autoencoder.channels)
    coarse = rng.normal(0, 40, (*shape[:3], 4, 4, shape[-1])).repeat(4, 3).repeat(4, 4)
    return list(torch.from_numpy(np.clip(coarse + rng.normal(0, 5, shape), -128, 127).round()).float())


def trainer(model: VqAutoencoder, ranks: Ranks | None = None, **more: Any) -> AutoencoderTrainer:
    return AutoencoderTrainer(model, steps=STEPS, autocast=False, ranks=ranks, **more)


def bits(module: torch.nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("modality", list(TINY))
def test_a_state_on_disk_continues_to_the_same_bits(tmp_path: Path, modality: Modality) -> None:
    data = batches(modality, STEPS, 2)
    whole = trainer(fitted(modality))
    for levels in data:
        whole.step(levels)
    first = trainer(fitted(modality))
    for levels in data[:3]:
        first.step(levels)
    RunFolder(tmp_path).save_state(first.state_dict(), {"best": 1.5})
    second = trainer(VqAutoencoder(TINY[modality].autoencoder))
    state, more = RunFolder(tmp_path).load_state() or ({}, {})
    second.load_state_dict(state)
    for levels in data[3:]:
        second.step(levels)
    assert more == {"best": 1.5}
    assert bits(second.averaged) == bits(whole.averaged)
    assert bits(second.model) == bits(whole.model)
    for one, other in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert one.stride() == other.stride()


def test_codebooks_follow_their_vectors_as_a_slow_reference_does() -> None:
    model = fitted()
    run = trainer(model, dropout=0.0, decay=0.9)
    d = model.config.latent_dim
    expected: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for levels in batches(Modality.IMAGE, 4, 3):
        with torch.no_grad():
            quantized = model.quantize(model.latents(levels), 2)
        for k in range(2):
            rows = model.codebook(k).reshape(-1, d).double().numpy()
            codes = (
                (quantized.tables[..., k] * model.codebook(k).shape[1] + quantized.codes[..., k]).reshape(-1).numpy()
            )
            vectors = quantized.residuals[k].reshape(-1, d).double().numpy()
            share = len(codes) / len(rows)
            if len(expected) <= k:
                expected.append((np.full(len(rows), share), rows * share))
            counts, sums = expected[k]
            for row in range(len(rows)):
                own = vectors[codes == row]
                if len(own):
                    keep = 0.9 ** min(len(own) / share, 100)
                    counts[row] = counts[row] * keep + share * (1 - keep)
                    sums[row] = sums[row] * keep + own.mean(0) * share * (1 - keep)
        run.step(levels)
        for k in range(2):
            wanted = expected[k][1] / expected[k][0][:, None]
            np.testing.assert_allclose(model.codebook(k).reshape(-1, d).numpy(), wanted, rtol=1e-4, atol=1e-3)


def test_training_that_diverges_stops(tmp_path: Path) -> None:
    run = trainer(fitted())
    with pytest.raises(JobError, match="step 0: the loss is nan"):
        run.step(torch.full((2, 1, 16, 16, 3), float("nan")))


def test_two_ranks_have_the_same_bits_and_learn_what_one_process_learns(tmp_path: Path) -> None:
    torch.multiprocessing.set_forkserver_preload([__name__])
    torch.multiprocessing.start_processes(_rank, (tmp_path,), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    assert json.loads((tmp_path / "0.json").read_text()) == json.loads((tmp_path / "1.json").read_text())
    alone = trainer(fitted())
    losses = [alone.step(levels).loss for levels in batches(Modality.IMAGE, 3, 4)]
    assert json.loads((tmp_path / "0.json").read_text()) == pytest.approx(losses, rel=1e-4)
    # A vector between two codes may fall either way, and takes its row along; everything else agrees closely.
    for key, value in alone.model.state_dict().items():
        close = torch.isclose(first["model"][key], value, rtol=1e-2, atol=2e-3).float().mean()
        assert close > 0.9, key


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    ranks = Ranks(rank, 2)
    model = fitted() if rank == 0 else VqAutoencoder(TINY[Modality.IMAGE].autoencoder)
    ranks.copy_first(model)
    run = trainer(model, ranks)
    losses = [run.step(levels[2 * rank : 2 * rank + 2]).loss for levels in batches(Modality.IMAGE, 3, 4)]
    torch.save({"model": run.model.state_dict()}, folder / f"{rank}.pt")
    (folder / f"{rank}.json").write_text(json.dumps(losses))
    assert ranks.from_first(rank) == 0
    dist.destroy_process_group()


def test_damaged_states_say_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load_state() is None
    run = trainer(fitted())
    for step in range(3):
        run.step_index = step
        folder.save_state(run.state_dict(), {})
    assert sorted(each.name for each in (tmp_path / "states").iterdir()) == ["00000001", "00000002"]
    tensors = tmp_path / "states" / "00000002" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-50])
    with pytest.raises(ValueError, match="remove this folder to go on from the one before"):
        folder.load_state()
