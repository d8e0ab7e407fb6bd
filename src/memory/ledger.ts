/**
 * Who has what coming on each GPU: engines that share one must not spend the same free memory
 * twice. A claim is what an engine's serving still has to take; a reservation is a capture under
 * way, which no reading of free memory shows yet.
 */

interface Entry {
  claimBytes: number;
  reservedBytes: number;
}

export class MemoryLedger {
  readonly #gpus = new Map<string, Map<string, Entry>>();

  /** What this engine's serving still needs on a GPU; the sum over its ranks there. */
  claim(gpu: string, engine: string, bytes: number): void {
    this.#entry(gpu, engine).claimBytes = Math.max(0, bytes);
  }

  /** Takes `bytes` on each GPU (twice where two ranks are on it) until released. */
  reserve(gpus: readonly string[], engine: string, bytes: number): () => void {
    const entries = gpus.map((gpu) => this.#entry(gpu, engine));
    for (const entry of entries) entry.reservedBytes += bytes;
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      for (const entry of entries) entry.reservedBytes = Math.max(0, entry.reservedBytes - bytes);
    };
  }

  /** Everything that has to come off a GPU's free memory. */
  spokenFor(gpu: string): number {
    let bytes = 0;
    for (const entry of this.#gpus.get(gpu)?.values() ?? []) {
      bytes += entry.claimBytes + entry.reservedBytes;
    }
    return bytes;
  }

  /** Reservations open on a GPU, of all engines. */
  reserved(gpu: string): number {
    let bytes = 0;
    for (const entry of this.#gpus.get(gpu)?.values() ?? []) bytes += entry.reservedBytes;
    return bytes;
  }

  /** The engine is gone: what it took is in the readings, what it was about to take is off. */
  forget(engine: string): void {
    for (const [gpu, engines] of this.#gpus) {
      engines.delete(engine);
      if (engines.size === 0) this.#gpus.delete(gpu);
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
      entry = { claimBytes: 0, reservedBytes: 0 };
      engines.set(engine, entry);
    }
    return entry;
  }
}
