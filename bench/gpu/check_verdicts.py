"""What the engines of one check of checks.py say together. Pure."""

from __future__ import annotations

import math
from typing import Any

import adapter_checks
import draft_checks
import offload_checks
import rank_checks
import sleep_checks
import state_checks

# What is made wrong in a control, by its kind.
FAULTS = {
    "control": "dead:PIECEWISE:512,dead:FULL:512,dead:FULL:512:u4",
    "control-rank": "corrupt:FULL:512@1",
}


def runs_otherwise(part: dict[str, Any], kind: str) -> str | None:
    """Why our part of a check says nothing of what it is there for; ``None``: it does."""
    ranks = part["ranks"]
    if any(rank.get("stock") for rank in ranks):
        return "the engine ran as stock"
    if part.get("asksBreakable"):
        held = [rank.get("breakable") for rank in ranks]
        # A graph that is found to be wrong is let go: a control may hold none in the end.
        if None in held or (kind not in FAULTS and 0 in held):
            return "expected breakable graphs on every rank, got none"
    return None


def equal(some: dict[str, list[int]], others: dict[str, list[int]]) -> int:
    """How many sequences are the same to the last token."""
    return sum(tokens == others.get(name) for name, tokens in some.items())


def verdict(kind: str, parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the parts of a check say together."""
    # Of several engines of ours any one tells.
    if why := runs_otherwise(parts.get("ours") or parts["default"], kind):
        return {"fine": False, "why": why}
    if kind in ("tokens", "aside"):
        base = parts["stock" if kind == "tokens" else "plain"]["tokens"]
        same = equal(base, parts["ours"]["tokens"])
        known = ("tokens", "ranks", "asksBreakable", "agrees")
        traffic = {k: v for k, v in parts["ours"].items() if k not in known}
        length = sum(len(sequence) for sequence in base.values())
        wanted = len(base) if kind == "tokens" else equal(base, parts["again"]["tokens"])
        fine = same >= wanted and traffic["capturedInTraffic"] > 0 and not traffic["errors"]
        told = {"sequences": len(base), "same": same, "sameAgain": wanted}
        if kind == "aside":
            crashed = parts["control"].get("crashed")
            control = 0 if crashed else equal(base, parts["control"]["tokens"])
            fine = fine and control < wanted and state_checks.fine(parts)
            # Of a family with prefix caching.
            if "blocksPassed" in traffic:
                fine = fine and traffic["blocksPassed"] > 0 and traffic["cachedTokens"] > 0
            told |= {"controlSame": control, "controlCrashed": crashed}
            told["controlTouched"] = parts["control"].get("touched")
        return {"fine": fine, **told, "tokens": length, **traffic}
    if kind == "ranks":
        return rank_checks.verdict(parts)
    if kind == "sleep":
        return sleep_checks.verdict(parts)
    if kind == "reload":
        return sleep_checks.verdict_reload(parts)
    if kind == "spec-tokens":
        return draft_checks.verdict_tokens(parts)
    if kind == "spec-steps":
        return draft_checks.verdict_steps(parts)
    if kind == "offload-tokens":
        return offload_checks.verdict_tokens(parts)
    if kind == "lora-tokens":
        return adapter_checks.verdict_tokens(parts, parts["ours"]["adapters"])
    if kind == "lora-lazy":
        return adapter_checks.verdict_lazy(parts)
    ranks = parts["ours"]["ranks"]
    exact = [sum(worst == 0 for worst in rank["verified"].values()) for rank in ranks]
    told = {
        "ranks": len(ranks),
        "planned": len(ranks[0]["planned"]),
        "captured": [len(rank["captured"]) for rank in ranks],
        "exact": exact,
        "worst": worst_of(ranks),
        "mismatched": [sorted(rank["mismatched"]) for rank in ranks],
        "failed": ranks[0]["failed"],
        "sameOnAllRanks": len({rank["hash"] for rank in ranks}) == 1,
    }
    if kind == "verify":
        return {"fine": all(n == told["planned"] for n in exact) and told["sameOnAllRanks"], **told}
    if kind == "control-rank":
        return {"fine": told["mismatched"] == on_rank_one(len(ranks)), **told}
    # By its drafts, three a request, a FULL graph is for so many requests of four tokens.
    dead = {"FULL:512", "FULL:512:u4", "PIECEWISE:512"} & set(ranks[0]["planned"])
    found = all(dead <= set(names) for names in told["mismatched"])
    return {"fine": bool(dead) and found, **told}


def worst_of(ranks: list[dict[str, Any]]) -> float | str | None:
    """The largest difference of all; as text where it is no number, which JSON has no word for."""
    found = [worst for rank in ranks for worst in rank["verified"].values()]
    wrong = next((worst for worst in found if not math.isfinite(worst)), None)
    return max(found, default=None) if wrong is None else str(wrong)


def on_rank_one(ranks: int) -> list[list[str]]:
    """What each rank finds where only the second one's graph is wrong."""
    return [["FULL:512"] if rank == 1 else [] for rank in range(ranks)]


def untested(parts: dict[str, dict[str, Any]]) -> str | None:
    """Why our engine would have run as stock by default; ``None``: it would not."""
    ranks = (parts.get("ours") or parts["default"])["ranks"]
    reasons = (rank.get("untested") for rank in ranks)
    return next((reason for reason in reasons if reason), None)
