"""How the command line says what went wrong."""

from __future__ import annotations

import click


def print_error(error: Exception) -> None:
    """Print an error of this package or of the file system as one line on standard error."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        # Where a temporary file could not be renamed, the second name is the one that was asked for.
        name = error.filename2 or error.filename
        text = f"{name}: {error.strerror}" if name else error.strerror
    click.secho(f"multitok: {text}", fg="red", err=True)
