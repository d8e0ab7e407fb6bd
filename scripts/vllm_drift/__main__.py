"""``python -m vllm_drift PLACE…``: which hooks changed in each vLLM.

Exit code 0: none; 1: some, named; 2: no vLLM in a place.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .compare import changes
from .expected import GENERATIONS, Generation, bodies, files, generation_named, generation_of, named
from .sources import Sources, SourcesError, open_sources, read_archive, write_archive


def main(arguments: list[str]) -> int:
    """Check each place, or the archive; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vllm_drift", allow_abbrev=False)
    parser.add_argument("places", nargs="*", type=Path)
    parser.add_argument("--adapter", choices=list(dict.fromkeys(g.name for g in GENERATIONS)))
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="put the places into the archive")
    options = parser.parse_args(arguments)
    try:
        opened = [open_sources(place, files()) for place in options.places]
        if options.keep:
            held = read_archive(options.archive, files()) if options.archive.exists() else []
            new = {sources.version for sources in opened}
            kept = [h for h in held if h.version not in new]
            write_archive(options.archive, [*kept, *opened], bodies(), named())
        if not opened:
            opened = read_archive(options.archive, files())
        return max(_check(sources, options.adapter) for sources in opened)
    except SourcesError as error:
        print(f"{error}.", file=sys.stderr)
        return 2


def _check(sources: Sources, adapter: str | None) -> int:
    own = generation_of(sources.version)
    against: Generation = own or GENERATIONS[-1]
    if adapter is not None:
        against = generation_named(adapter) or against
    subject = f"vLLM {sources.version}, adapter {against.name}"
    if own is None and adapter is None:
        # Not wrong: it runs as stock.
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
