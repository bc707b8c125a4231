"""Published tokenizers as torch modules, one file each."""
