"""The codec's nets: exact against float, spectra and overlap-add against slow references, freezing and thawing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from multitok.errors import SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.codec import Codec, freeze_codec, thaw_codec
from multitok.nets.codec_exact import ExactCodec, features, log_mel, prior_filters
from multitok.nets.vocoder import VocoderConfig
from multitok.nets.vocoder_module import Vocoder
from tests.nets.small_codec import clips, small_codec, small_config

CODEC = small_codec()
EXACT = freeze_codec(small_codec(), clips())
WAVE = clips(1, 20_000)[0]


def latents(exact: ExactCodec, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    analysis = exact.analysis(exact.config.num_codebooks)
    state, found = analysis.latents(analysis.initial_state(), samples)
    return np.concatenate([found, analysis.last_latents(state)])


def decoded(exact: ExactCodec, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    synthesis = exact.synthesis()
    state, samples = synthesis.step(synthesis.initial_state(), codes)
    return np.concatenate([samples, synthesis.finish(state)])


def snr_db(wanted: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    return 10 * math.log10(float((wanted**2).mean()) / float(((wanted - found) ** 2).mean()))


@pytest.mark.parametrize("length", [1, 199, 20_000])
def test_the_exact_codec_does_what_the_float_one_does(length: int) -> None:
    samples, count = WAVE[:length], -(-length // 200)
    with torch.no_grad():
        wanted = CODEC.latents(torch.from_numpy(samples)[None])[0]
        codes = CODEC.quantizer.encode(wanted)
        sound = CODEC.decode(codes.T[None])[0]
    assert wanted.shape == latents(EXACT, samples).shape == (count, 8)
    assert snr_db(wanted.numpy(), latents(EXACT, samples)) > 25
    found = decoded(EXACT, codes.T.numpy().astype(np.int32))
    assert sound.shape == found.shape == (count * 200,)
    assert snr_db(sound.numpy(), found) > 25


def test_features_are_the_same_in_torch_and_numpy() -> None:
    mel = CODEC.config.mel
    padded = np.pad(WAVE, (200, 200))
    frames = np.stack([padded[200 * t : 200 * t + 600] for t in range(100)])
    logs = log_mel(mel.energies_of(frames))
    wanted = features(frames, mel.window, logs)
    found, found_logs = (each[0].numpy() for each in CODEC.features(torch.from_numpy(WAVE)[None]))
    assert wanted.shape == found.shape == (100, 983)
    assert np.abs(logs - found_logs).max() < 1e-3
    # What hardly sounds is divided by itself: rounding shows there.
    audible = np.concatenate([np.tile(wanted[:, 602:903] > 0.2, 3), np.zeros((100, 80), bool)], axis=1)
    assert np.abs(wanted - found)[audible].max() < 1e-3


def test_one_frame_of_spectrum_by_hand() -> None:
    rng = np.random.default_rng(0)
    factors, frame = rng.normal(size=(1, 802)).astype(np.float32), rng.normal(size=(1, 8)).astype(np.float32)
    (found,) = EXACT.synthesis()._spectra(factors, frame)
    weights, _, bias = EXACT.envelope.floats()
    logs = np.clip(weights @ (np.rint(frame[0] * 1024) / 1024) + bias, -1.75, 5)
    energies, filters = 10 ** (2 * logs - 4), prior_filters(EXACT.config)
    for frequency in (0, 1, 17, 100, 399, 400):
        power = 20 * sum(energies[m] * filters[m, frequency] for m in range(80)) + 1e-12
        wanted = (factors[0, frequency] + 1j * factors[0, 401 + frequency]) * math.sqrt(power)
        assert abs(found[frequency] - wanted) < 1e-5 * abs(wanted)


def test_at_most_two_bands_cover_a_frequency() -> None:
    assert int((prior_filters(small_config()) > 0).sum(axis=0).max()) == 2


def test_clips_that_go_on_behind_their_end() -> None:
    """Cut latents and sound are those of the longer clip."""
    samples = torch.from_numpy(WAVE[:8_000])[None]
    with torch.no_grad():
        whole, cut = CODEC.latents(samples), CODEC.latents(samples[:, :6_000], cut=True)
        assert cut.shape == (1, 29, 8)
        # The frame that overlaps the end hears silence there.
        assert torch.allclose(cut[:, :28], whole[:, :28], atol=1e-5)
        sound, some = CODEC.reconstruct(whole), CODEC.reconstruct(whole[:, :30], cut=True)
    assert some.shape == (1, 28 * 200)
    assert torch.allclose(some[:, : 26 * 200], sound[:, : 26 * 200], atol=1e-5)


def test_thawed_it_does_the_same_to_within_rounding() -> None:
    thawed = thaw_codec(EXACT).eval()
    with torch.no_grad():
        found = thawed.latents(torch.from_numpy(WAVE)[None])[0].numpy()
    assert snr_db(latents(EXACT, WAVE), found) > 25
    again = freeze_codec(thawed, clips())
    assert all(np.array_equal(a, b) for a, b in zip(again.codebooks, EXACT.codebooks, strict=True))
    assert snr_db(latents(EXACT, WAVE), latents(again, WAVE) + 1e-9) > 40


def test_gradients_reach_every_weight() -> None:
    codec = small_codec().train()
    samples = torch.from_numpy(np.stack(clips(2, 6_400)))
    quantized = codec.quantizer(codec.latents(samples, cut=True), torch.tensor([2, 4])).quantized
    codec.reconstruct(quantized, cut=True).square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in codec.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in codec.parameters() if p.grad is not None)


def test_forward_is_encode_and_decode() -> None:
    samples = torch.from_numpy(np.stack(clips(2, 5_000)))
    with torch.no_grad():
        found = CODEC(samples, 2)
        codes = CODEC.encode(samples, 2)
    assert codes.shape == (2, 2, 25)
    assert torch.allclose(found, CODEC.decode(codes, 5_000), atol=1e-6)


def test_it_starts_from_a_vocoder() -> None:
    """Before it learns anything, latents carry log mel energies, and the decoder does what the vocoder does."""
    net: dict[str, Any] = {"channels": 16, "hidden": 24, "taps": 3, "dilations": (1, 2), "lookahead": 2}
    decoder = CausalConfig(in_dim=100, out_dim=802, **net)
    config = small_config(encoder=CausalConfig(in_dim=983, out_dim=100, **net), decoder=decoder)
    torch.manual_seed(0)
    vocoder = Vocoder(VocoderConfig(net=CausalConfig(in_dim=80, out_dim=802, **net)))
    samples = torch.from_numpy(np.stack(clips()))
    codec = Codec(config)
    codec.start_nets(samples, vocoder)
    with torch.no_grad():
        logs = codec.features(samples)[1]
        passed = codec.envelope(codec.latents(samples))
        assert float((passed - logs).square().mean()) < 0.05 * float((logs - codec.mel_mean).square().mean())
        codec.decoder.enter.weight[:, 64:] = 0
        energies = 10 ** (2 * passed - 4)
        assert snr_db(vocoder(energies).numpy(), codec.reconstruct(codec.latents(samples), cut=True).numpy()) > 20
    other = Vocoder(VocoderConfig(net=CausalConfig(in_dim=80, out_dim=802, **{**net, "hidden": 25})))
    with pytest.raises(SpecError, match="cannot start a decoder"):
        codec.start_nets(samples, other)


def test_what_training_has_spoilt_is_refused() -> None:
    codec = small_codec()
    codec.levels[2].codebook[0, 0] = 1e6
    with pytest.raises(SpecError, match="codebook 2 holds values that are not finite, or too large"):
        freeze_codec(codec, clips())
    codec = small_codec()
    with torch.no_grad():
        codec.skip.weight[0, 0] = math.nan
    with pytest.raises(SpecError, match="linear map"):
        freeze_codec(codec, clips())
    assert not Codec(small_config()).is_started
