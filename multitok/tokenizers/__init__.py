"""Tokenizers, one file per kind. `multitok.registry` says which class serves which kind."""
