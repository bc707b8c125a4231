"""Make tokenizers from data. Every `train_*` function returns a new, immutable tokenizer or codebook."""
