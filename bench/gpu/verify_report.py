"""Sums up the plugin's log of a run with `LAZYGRAPH_VERIFY=1` as one JSON document.

    python3 bench/gpu/verify_report.py LOG

Every line `verified GRAPH: largest relative difference X` is one graph on one rank, its first replay
against an ungraphed run of the same padded inputs; `will not serve` names what was taken out.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

LIMIT = 0.02  # RELATIVE_LIMIT of lazygraph_vllm/rank/verify.py


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    text = Path(sys.argv[1]).read_text(errors="replace")
    found = re.findall(r"verified (\S+): largest relative difference (\S+)", text)
    differences = [(graph, float(value)) for graph, value in found]
    if not differences:
        sys.exit(f"expected lines of a run with LAZYGRAPH_VERIFY=1 in {sys.argv[1]}, got none")
    excluded = re.findall(r"graph (\S+) will not serve: (.+)", text)
    report = {
        "checks": len(differences),
        "graphs": len({graph for graph, _ in differences}),
        "bitForBit": sum(value == 0 for _, value in differences),
        "beyondLimit": [g for g in differences if not g[1] <= LIMIT],
        "limit": LIMIT,
        "excluded": [{"graph": graph, "reason": reason} for graph, reason in excluded],
        "checksPerGraph": dict(Counter(Counter(graph for graph, _ in differences).values())),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
