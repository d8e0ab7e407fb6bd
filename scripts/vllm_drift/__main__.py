"""``python -m vllm_drift PLACE…``: which hooks changed; ``--files``: which files are looked at.

Exit code 0: none; 1: some, named; 2: what was asked for is no vLLM.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .compare import changes
from .expected import GENERATIONS, Generation, files, generation_named, generation_of
from .sources import SourcesError, open_sources


def main(arguments: list[str]) -> int:
    """Check each place; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vllm_drift", allow_abbrev=False)
    parser.add_argument("places", nargs="*", type=Path)
    parser.add_argument("--adapter", choices=[g.name for g in GENERATIONS])
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args(arguments)
    if options.files:
        print("\n".join(sorted(files())))
        return 0
    if not options.places:
        parser.error("expected a wheel, an archive or a folder, got none")
    try:
        return max(_check(place, options.adapter) for place in options.places)
    except SourcesError as error:
        print(f"{error}.", file=sys.stderr)
        return 2


def _check(place: Path, adapter: str | None) -> int:
    sources = open_sources(place, files())
    own = generation_of(sources.version)
    against: Generation = own or GENERATIONS[-1]
    if adapter is not None:
        against = generation_named(adapter) or against
    subject = f"vLLM {sources.version}, adapter {against.name}"
    if own is None:
        # Nothing is wrong yet: at run time this version is left to vLLM.
        subject += " (no adapter is for this version; the newest is compared)"
    found = changes(sources, against.hooks)
    if not found:
        print(f"{subject}: {len(against.hooks)} expectations hold.")
        return 0
    names = list(dict.fromkeys(change.hook for change in found))
    print(f"{subject}: {len(names)} hooks changed: {', '.join(names)}.")
    for change in found:
        print(f"  {change.hook}: {change.what} (vllm/{change.file}; {change.why})")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
