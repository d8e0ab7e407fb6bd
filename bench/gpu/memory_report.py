"""Sums up the pieces of memory.sh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MIB = 1 << 20
# The reference differs from itself by how requests met in batches; ours may by half as much more.
SLACK_SHARE = 1.5
SLACK_SEQUENCES = 4


def differing(ours: list[Any], reference: list[Any]) -> tuple[int, int, int]:
    """Requests compared, sequences that differ, first tokens that differ."""
    pairs = [
        (a, b) for w, v in zip(ours, reference, strict=False) for a, b in zip(w, v, strict=True)
    ]
    sequences = sum(a != b for a, b in pairs)
    first = sum(a[:1] != b[:1] for a, b in pairs)
    return len(pairs), sequences, first


def kv_tokens(piece: dict[str, Any]) -> int | None:
    """What vLLM said of its KV cache."""
    for line in piece.get("log", {}).get("kv", ()):
        if "GPU KV cache size" in line:
            return int(line.split("size:")[1].split()[0].replace(",", ""))
    return None


def summary(pieces: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    reference = pieces.get("reference", {}).get("tokens", [])
    half = len(reference) // 2
    within = differing(reference[half:], reference[:half]) if half else (0, 0, 0)
    rows = []
    for name, piece in pieces.items():
        if name in ("warm", "graphs"):
            continue
        compared, sequences, first = differing(piece.get("tokens", []), reference[:half])
        if name == "reference":
            compared, sequences, first = within
        allowed = within[1] / max(1, within[0]) * compared * SLACK_SHARE + SLACK_SEQUENCES
        reserve = (piece.get("engine") or {}).get("reserve") or {}
        rows.append(
            {
                "piece": name,
                "outcome": piece["outcome"],
                "wavesServed": piece.get("wavesServed"),
                "graphs": piece.get("graphsCaptured"),
                "graphsPlanned": piece.get("graphsPlanned"),
                "graphMiB": round(piece["graphBytes"] / MIB) if "graphBytes" in piece else None,
                "kvTokens": kv_tokens(piece),
                "reserveMiB": round(reserve["bytes"] / MIB) if reserve else None,
                "reserveKvTokens": reserve.get("kvTokens"),
                "freeMiBLowest": piece.get("freeMiBLowest"),
                "stepMs": piece.get("stepMs"),
                "compared": compared,
                "sequencesDiffer": sequences,
                "firstTokensDiffer": first,
                "tokensRight": None if compared == 0 else sequences <= allowed,
            }
        )
    return rows


def write(out: Path) -> None:
    """OUT_DIR/memory.json, and a table on stdout."""
    found = sorted(out.glob("*.json"), key=lambda f: f.stat().st_mtime)
    pieces = {f.stem: json.loads(f.read_text()) for f in found}
    pieces = {name: p for name, p in pieces.items() if isinstance(p, dict) and "piece" in p}
    rows = summary(pieces)
    document = {"what": "memory", "summary": rows, "pieces": pieces}
    (out / "memory.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{'piece':14} {'outcome':28} {'graphs':>8} {'MiB':>6} {'KV tokens':>10} "
          f"{'lowest free':>11} {'step ms at 1, 8, 64, 200':26} tokens")  # fmt: skip
    for row in rows:
        steps = " ".join(f"{ms:.2f}" for ms in (row["stepMs"] or {}).values()) or "-"
        count = "-" if row["graphs"] is None else f"{row['graphs']}/{row['graphsPlanned']}"
        right = {None: "-", True: "right", False: "WRONG"}[row["tokensRight"]]
        print(
            f"{row['piece']:14} {row['outcome']:28} {count:>8} {row['graphMiB'] or '-':>6} "
            f"{row['kvTokens'] or '-':>10} {row['freeMiBLowest'] or '-':>11} {steps:26} {right} "
            f"({row['sequencesDiffer']} of {row['compared']} sequences differ)"
        )
