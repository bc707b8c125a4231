"""What starting costs: `python benchmarks/startup.py [--runs N]`

Wall time of fresh processes: bare Python, `import multitok`, `multitok --help`, and beside them `import torch`, which
a user does not pay before a tokenizer needs it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from machine import describe

COMMANDS = {
    "python, nothing imported": ["-c", "pass"],
    "import multitok": ["-c", "import multitok"],
    "multitok --help": ["-m", "multitok.cli", "--help"],
    "import numpy": ["-c", "import numpy"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Time all commands in turn, round by round, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(runs + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if round_:  # the first round warms the file cache
                times[name].append(time.perf_counter() - started)
    print(f"{describe()}; median of {runs} runs, in brackets the extremes\n")
    print("| process | ms |\n|---|---|")
    for name, found in times.items():
        ms = [1000 * t for t in found]
        print(f"| {name} | {statistics.median(ms):.0f} ({min(ms):.0f} to {max(ms):.0f}) |")


if __name__ == "__main__":
    main()
