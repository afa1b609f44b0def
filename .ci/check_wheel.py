"""Check that a wheel holds every tracked file of the package exactly once, and nothing else.

python .ci/check_wheel.py dist/ldsnn_compiler-*.whl, from the root of the checkout
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import PurePosixPath
from zipfile import ZipFile

PACKAGE = "ldsnn_compiler"
FOLDERS = ("passes", "targets")


def expected() -> set[str]:
    """Where the tracked files of the package belong in the wheel."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.split("\n")
    paths = [PurePosixPath(line) for line in listed if line]
    links = {f"{PACKAGE}/{folder}" for folder in FOLDERS}
    inside = {str(p) for p in paths if p.parts[0] == PACKAGE} - links
    return inside | {f"{PACKAGE}/{p}" for p in paths if p.parts[0] in FOLDERS}


def main(wheel: str) -> int:
    """Print every difference; 1 if there is one."""
    names = Counter(n for n in ZipFile(wheel).namelist() if ".dist-info/" not in n)
    problems = [f"held {count} times: {name}" for name, count in names.items() if count > 1]
    problems += [f"missing: {name}" for name in sorted(expected() - set(names))]
    problems += [f"not tracked: {name}" for name in sorted(set(names) - expected())]
    print("\n".join(problems) if problems else f"{wheel.rpartition('/')[2]}: {len(names)} files, each once")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
