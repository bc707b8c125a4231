"""The command line, nothing else: each command parses its options, calls the library and prints.

Commands live one to a file and load when called, so that `multitok --help` costs no framework.
"""

from __future__ import annotations

import importlib
import sys

import click

from multitok import __version__
from multitok.cli.messages import print_error
from multitok.errors import MultitokError

# Command -> its line in `multitok --help`. Its function is `command` in the module of the same name.
COMMANDS = {
    "list": "Show tokenizers: kinds, shipped checkpoints, plug-ins.",
    "encode": "Turn a file into codes.",
    "decode": "Turn codes, or a document of a prepared folder, back into files.",
    "count": "Count the tokens of files and folders, from their headers where that is exact.",
    "vocab": "Join tokenizers into one vocabulary: one shared ID space.",
    "prepare": "Turn raw sources into token shards, resumable at any instant.",
    "status": "Show how far a prepare job is.",
    "verify": "Check a prepared folder: hashes, and a sample encoded again.",
    "inspect": "Show what a checkpoint, vocabulary, codes file or prepared folder holds.",
    "train": "Make a tokenizer from your own data.",
    "eval": "Measure image, video, volume and audio tokenizers beside known codecs.",
    "doctor": "Check this installation and name the fix for what is missing.",
}


class _LazyGroup(click.Group):
    """Imports a command's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"multitok.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", message="multitok %(version)s")
def cli() -> None:
    """Text, images, video, volumes, audio, series and gene sequences as one stream of token IDs, and back.

    \b
    multitok list                                     what there is
    multitok encode photo.jpg                         photo.jpg.codes
    multitok decode photo.jpg.codes --out back.png    and back
    multitok prepare data/ --vocab base --out shards  a folder of anything -> token shards
    """


def main() -> None:
    """Run the command line; errors of this package and of the file system become one line and exit status 1."""
    try:
        cli.main(standalone_mode=True)
    except (MultitokError, OSError) as error:
        print_error(error)
        sys.exit(1)
