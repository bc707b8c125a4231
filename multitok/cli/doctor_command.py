"""`multitok doctor`: is this installation sound?"""

from __future__ import annotations

import json
import sys

import click


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show versions, processor features, backends and extras, and the fix for each missing thing.

    Exits with status 1 where something that the base needs is broken.
    """
    from multitok.cli.tables import print_table
    from multitok.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        for section in dict.fromkeys(finding.section for finding in findings):
            rows = [(f.mark, f.name, f.value, f.fix) for f in findings if f.section == section]
            print_table(section, ("", "what", "found", "fix"), rows)
            click.echo()
    if any(finding.state == "broken" for finding in findings):
        sys.exit(1)
