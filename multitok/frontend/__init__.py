"""Raw items to model input and back: patches, spectra, media files."""
