"""Compares files of tokens.py: does an engine answer what stock answers?

    python3 bench/gpu/compare_tokens.py --stock A.json B.json --ours C.json [--exact] [--control F.json]

`--exact` (batch-invariant kernels): every sequence must be equal in every pass. Without it the batch
composition alone moves sequences, so the share that differs between two stock runs is the yardstick:
ours may differ from stock at most as much as stock from itself, plus three standard errors.
`--control` files were made with a fault in place: each must fail the same check, or the check is
worth nothing. Prints one JSON document; exit code 1 when a check fails or a control passes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import combinations, product
from pathlib import Path

PASSES = ("before", "during", "after")


def load(path: str) -> dict:
    return json.loads(Path(path).read_text())


def differing(a: list[list[int]], b: list[list[int]]) -> tuple[int, int]:
    """Sequences and first tokens that differ."""
    if len(a) != len(b):
        raise SystemExit(
            f"expected as many sequences in both files, got {len(a)} and {len(b)}"
        )
    return (
        sum(x != y for x, y in zip(a, b, strict=True)),
        sum(x[0] != y[0] for x, y in zip(a, b, strict=True)),
    )


def distinct(tokens: list[list[int]]) -> int:
    return len({t for sequence in tokens for t in sequence})


def yardstick(stock: list[dict]) -> list[dict]:
    """How stock differs from itself: between runs, and between the passes of one run."""
    rows = []
    for a, b in combinations(stock, 2):
        rows += [
            row(a["tokens"][p], b["tokens"][p], f"stock/stock {p}") for p in PASSES
        ]
    for a in stock:
        rows += [
            row(a["tokens"][p], a["tokens"][q], f"stock {p}/{q}")
            for p, q in combinations(PASSES, 2)
        ]
    return rows


def row(a: list[list[int]], b: list[list[int]], name: str) -> dict:
    sequences, first = differing(a, b)
    return {
        "pair": name,
        "of": len(a),
        "sequencesDiffer": sequences,
        "firstTokensDiffer": first,
    }


def rows_against(stock: list[dict], ours: dict) -> list[dict]:
    return [
        row(s["tokens"][p], ours["tokens"][p], p) for s, p in product(stock, PASSES)
    ]


def verdict(rows: list[dict], reference: list[dict], exact: bool) -> dict:
    """Worst of our passes against the yardstick."""
    if exact:
        worst = max(r["sequencesDiffer"] for r in rows)
        return {"passes": worst == 0, "sequencesDifferMax": worst, "limit": 0}
    n = rows[0]["of"]
    limits = {}
    ok = True
    for key in ("sequencesDiffer", "firstTokensDiffer"):
        share = max(r[key] for r in reference) / n
        error = math.sqrt(max(share * (1 - share), 1 / n) / n)
        limits[key] = math.floor((share + 3 * error) * n)
        ok = ok and all(r[key] <= limits[key] for r in rows)
    return {"passes": ok, "limits": limits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stock", nargs="+", required=True)
    parser.add_argument("--ours", nargs="+", required=True)
    parser.add_argument("--control", nargs="*", default=[])
    parser.add_argument("--exact", action="store_true")
    args = parser.parse_args()
    stock = [load(p) for p in args.stock]
    if len(stock) < 2 and not args.exact:
        raise SystemExit(
            "expected two --stock files or more, got one: stock is its own yardstick"
        )
    reference = yardstick(stock)
    report: dict = {
        "exact": args.exact,
        "prompts": stock[0]["prompts"],
        "model": stock[0]["model"],
        "tensorParallel": stock[0]["tensorParallel"],
        "distinctTokens": distinct(stock[0]["tokens"]["after"]),
        "stock": reference,
        "ours": [],
        "controls": [],
    }
    good = True
    if args.exact:
        good = all(r["sequencesDiffer"] == 0 for r in reference)
        report["stockIsExact"] = good
    for group, paths, want in (
        ("ours", args.ours, True),
        ("controls", args.control, False),
    ):
        for path in paths:
            run = load(path)
            rows = rows_against(stock, run)
            result = verdict(rows, reference, args.exact)
            good = good and result["passes"] is want
            report[group].append(
                {
                    "file": Path(path).name,
                    "fault": run["fault"],
                    "rows": rows,
                    **result,
                    "asExpected": result["passes"] is want,
                    "graphsCaptured": run.get("graphsCaptured"),
                    "otherRequests": run["otherRequests"],
                }
            )
    report["good"] = good
    print(json.dumps(report, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
