/**
 * Who has what coming on each GPU: engines that share one must not spend the same free memory
 * twice. A claim is what an engine's serving still has to take; a reservation is a capture under
 * way, which no reading of free memory shows yet. What an engine kept back from its KV cache for
 * graphs is theirs: serving would not have it either if there were no graphs.
 *
 * All of it is what engines say. What one says counts for the others only as long as its GPU has
 * room for it.
 */

/** What was kept back from an engine's KV cache for graphs. */
export interface Kept {
  readonly bytes: number;
  /** Of it, what no graph has taken yet. */
  readonly untakenBytes: number;
}

/** What a claim has to fit into. */
export interface Extent {
  /** Of the GPU: by its driver where that can be asked, else by the engine's own word. */
  readonly totalBytes: number;
  /** What the engine holds of it already, by its own word. */
  readonly heldBytes: number;
}

interface Entry {
  claimBytes: number;
  kept: Kept;
  reservedBytes: number;
  extent: Extent | undefined;
}

const NOTHING: Kept = { bytes: 0, untakenBytes: 0 };

/** Where memory is tight serving may want a little more than there is. */
const TIGHT_SHARE = 0.05;

/**
 * Whether what an engine says of a GPU can be so. What can't counts for that engine itself, and must
 * not keep the others from their captures.
 */
function isPossible({ claimBytes, kept, reservedBytes, extent }: Entry): boolean {
  if (extent === undefined) return true;
  const wanted = claimBytes + kept.untakenBytes + reservedBytes;
  return wanted + extent.heldBytes <= (1 + TIGHT_SHARE) * extent.totalBytes;
}

export class MemoryLedger {
  readonly #gpus = new Map<string, Map<string, Entry>>();

  /** What this engine's serving still needs on a GPU; sums over its ranks there. */
  claim(
    gpu: string,
    engine: string,
    bytes: number,
    kept: Kept = NOTHING,
    extent?: Extent | undefined,
  ): void {
    Object.assign(this.#entry(gpu, engine), { claimBytes: Math.max(0, bytes), kept, extent });
  }

  /** Takes `bytes` on each GPU (twice where two ranks are on it) until released. */
  reserve(gpus: readonly string[], engine: string, bytes: number): () => void {
    const entries = gpus.map((gpu) => this.#entry(gpu, engine));
    for (const entry of entries) entry.reservedBytes += bytes;
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      for (const entry of entries) entry.reservedBytes -= bytes;
    };
  }

  /** Everything that has to come off a GPU's free memory, as this engine sees it. */
  spokenFor(gpu: string, engine?: string): number {
    let bytes = 0;
    for (const { claimBytes, reservedBytes } of this.#counted(gpu, engine)) {
      bytes += claimBytes + reservedBytes;
    }
    return bytes;
  }

  /**
   * What of `freeBytes` an engine's captures must leave: captures under way, what others kept for
   * theirs, and serving's claims. Serving is not due what the engine kept for its own graphs: of
   * the rest it has what it would have without graphs, and if a stranger took that, its least.
   */
  offLimits(gpu: string, engine: string, freeBytes: number): number {
    let claimBytes = 0;
    for (const entry of this.#counted(gpu, engine)) claimBytes += entry.claimBytes;
    const othersBytes = this.keptByOthers(gpu, engine);
    const ownBytes = this.#gpus.get(gpu)?.get(engine)?.kept.untakenBytes ?? 0;
    const withoutBytes = freeBytes - othersBytes - ownBytes;
    const least = this.least(gpu, engine);
    const servingBytes =
      ownBytes > 0 ? Math.min(claimBytes, Math.max(least, withoutBytes)) : claimBytes;
    return servingBytes + othersBytes + this.reserved(gpu, engine);
  }

  /** What other engines on a GPU kept for graphs of theirs that have not taken it yet. */
  keptByOthers(gpu: string, engine: string): number {
    let bytes = 0;
    const own = this.#gpus.get(gpu)?.get(engine);
    for (const entry of this.#counted(gpu, engine)) {
      if (entry !== own) bytes += entry.kept.untakenBytes;
    }
    return bytes;
  }

  /** What serving must have in any case, even beside all graphs that memory was kept for. */
  least(gpu: string, engine?: string): number {
    let bytes = 0;
    for (const { claimBytes, kept } of this.#counted(gpu, engine)) {
      bytes += Math.max(0, claimBytes - kept.bytes);
    }
    return bytes;
  }

  /** Reservations open on a GPU, of all engines. */
  reserved(gpu: string, engine?: string): number {
    let bytes = 0;
    for (const entry of this.#counted(gpu, engine)) bytes += entry.reservedBytes;
    return bytes;
  }

  /** The engine is gone: what it took is in the readings, what it was about to take is off. */
  forget(engine: string): void {
    for (const [gpu, engines] of this.#gpus) {
      engines.delete(engine);
      if (engines.size === 0) this.#gpus.delete(gpu);
    }
  }

  /** An engine's own entry, and those of others that can be so. */
  *#counted(gpu: string, engine: string | undefined): Generator<Entry> {
    for (const [name, entry] of this.#gpus.get(gpu) ?? []) {
      if (name === engine || isPossible(entry)) yield entry;
    }
  }

  #entry(gpu: string, engine: string): Entry {
    let engines = this.#gpus.get(gpu);
    if (engines === undefined) {
      engines = new Map();
      this.#gpus.set(gpu, engines);
    }
    let entry = engines.get(engine);
    if (entry === undefined) {
      entry = { claimBytes: 0, kept: NOTHING, reservedBytes: 0, extent: undefined };
      engines.set(engine, entry);
    }
    return entry;
  }
}
