"""Sums up the pieces of memory.sh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MIB = 1 << 20
# The reference differs from itself by how requests met in batches, and an engine without graphs,
# which runs other kernels, from the reference: ours, with graphs or none, padded or not, may by
# half as much more than the larger of the two.
SLACK_SHARE = 1.5
SLACK_SEQUENCES = 4
# No piece is a baseline that differs by more than this in first tokens: it is wrong itself.
BASELINE_FIRST_TOKENS_MAX = 4


def differing(ours: list[Any], reference: list[Any]) -> tuple[int, int, int]:
    """Requests compared, sequences that differ, first tokens that differ."""
    pairs = [
        (a, b) for w, v in zip(ours, reference, strict=False) for a, b in zip(w, v, strict=True)
    ]
    sequences = sum(a != b for a, b in pairs)
    first = sum(a[:1] != b[:1] for a, b in pairs)
    return len(pairs), sequences, first


def baseline(pieces: dict[str, dict[str, Any]], reference: list[Any]) -> tuple[str, float]:
    """The piece that differs most by rights, and the share of its sequences that differ.

    Args:
        pieces: all there are, by name.
        reference: tokens of the reference's first pass.
    """
    tokens = pieces.get("reference", {}).get("tokens", [])
    _, own, _ = differing(tokens[len(tokens) // 2 :], reference)
    shares = [("reference", own / max(1, sum(map(len, reference))))]
    for name, piece in pieces.items():
        compared, sequences, first = differing(piece.get("tokens", []), reference)
        if name.startswith("none-") and compared and first <= BASELINE_FIRST_TOKENS_MAX:
            shares.append((name, sequences / compared))
    return max(shares, key=lambda one: one[1])


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
    base, share = baseline(pieces, reference[:half])
    rows = []
    for name, piece in pieces.items():
        if name in ("warm", "graphs"):
            continue
        compared, sequences, first = differing(piece.get("tokens", []), reference[:half])
        if name == "reference":
            compared, sequences, first = within
        allowed = share * compared * SLACK_SHARE + SLACK_SEQUENCES
        # An engine without graphs is no measure of itself.
        alone = name.startswith("none-")
        right = first <= BASELINE_FIRST_TOKENS_MAX if alone else sequences <= allowed
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
                "sequencesAllowed": None if compared == 0 or alone else int(allowed),
                "baseline": None if compared == 0 or alone else base,
                "tokensRight": None if compared == 0 else right,
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
    # It is published: small.
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    (out / "memory.json").write_text(text + "\n")
    print(f"{'piece':14} {'outcome':28} {'graphs':>8} {'MiB':>6} {'KV tokens':>10} "
          f"{'lowest free':>11} {'step ms at 1, 8, 64, 200':26} tokens")  # fmt: skip
    for row in rows:
        steps = " ".join(f"{ms:.2f}" for ms in (row["stepMs"] or {}).values()) or "-"
        count = "-" if row["graphs"] is None else f"{row['graphs']}/{row['graphsPlanned']}"
        right = {None: "-", True: "right", False: "WRONG"}[row["tokensRight"]]
        tokens = ""
        if row["compared"]:
            tokens = f" ({row['sequencesDiffer']} of {row['compared']} sequences differ"
            if row["baseline"] is not None:
                tokens += f", by {row['baseline']} {row['sequencesAllowed']} may"
            tokens += ")"
        print(
            f"{row['piece']:14} {row['outcome']:28} {count:>8} {row['graphMiB'] or '-':>6} "
            f"{row['kvTokens'] or '-':>10} {row['freeMiBLowest'] or '-':>11} {steps:26} "
            f"{right}{tokens}"
        )
