"""Causal nets over frames of sound: trained in torch, run in arithmetic that is exact for every split of a stream."""
