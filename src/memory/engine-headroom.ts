/**
 * The room on an engine's ranks: what is free, by the engine's last report and the driver's word,
 * less what serving still needs and what others have coming. Its claims are booked in the ledger
 * that engines share.
 */

import type { RankMemory } from "../wire/protocol.ts";
import {
  FLOOR_BYTES,
  type FreeReading,
  freeReading,
  type ServingClaim,
  servingClaim,
  wholeClaimBytes,
} from "./headroom.ts";
import type { Extent, Kept, MemoryLedger } from "./ledger.ts";

export interface HeadroomOptions {
  /** Who claims and reserves, unique among the engines of the ledger. */
  readonly engine: string;
  readonly ledger: MemoryLedger;
  /** The user's margin; undefined: an allowance that serving uses up. */
  readonly marginBytes: number | undefined;
  /** Free bytes of a GPU as this host's driver says; undefined where it can't be asked. */
  readonly driverFree: (gpu: string) => number | undefined;
  /** All bytes of a GPU, likewise. @default not known */
  readonly driverTotal?: (gpu: string) => number | undefined;
  /** Monotonic seconds. */
  readonly now: () => number;
}

/** Memory of one rank. */
export interface RankHeadroom {
  readonly gpu: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What must stay free: serving's needs, of all engines of this GPU, and their reservations. */
  readonly spokenForBytes: number;
  /** Of it, what this rank's own serving needs. */
  readonly claim: ServingClaim;
  /**
   * Free less spoken for, or what there would be with torch's cache emptied, if that is more;
   * negative where serving itself has too little.
   */
  readonly bytes: number;
}

/** An engine reports memory with its answers: an older report than this tells the past. */
const REPORT_SECONDS_MAX = 5;

export class EngineHeadroom {
  readonly #options: HeadroomOptions;
  readonly #firstRanks = new Map<number, RankMemory>();
  #ranks: readonly RankMemory[] = [];
  /** What serving still needs on each GPU, and the ranks there. */
  #claims: ReadonlyMap<string, { readonly bytes: number; readonly ranks: number }> = new Map();
  #reportedAtSeconds = Number.NEGATIVE_INFINITY;

  constructor(options: HeadroomOptions) {
    this.#options = options;
  }

  /** Whether the engine's word is too old to be taken for the present. */
  get isOld(): boolean {
    return this.#options.now() - this.#reportedAtSeconds > REPORT_SECONDS_MAX;
  }

  /** The first report of a rank is what serving's growth starts from. Book anew after it. */
  report(ranks: readonly RankMemory[]): void {
    this.#ranks = ranks;
    this.#reportedAtSeconds = this.#options.now();
    const claims = new Map<string, { bytes: number; ranks: number }>();
    for (const rank of ranks) {
      if (!this.#firstRanks.has(rank.rank)) this.#firstRanks.set(rank.rank, rank);
      const { peakBytes, marginBytes } = this.#claim(rank);
      const { bytes, ranks: others } = claims.get(rank.gpuUuid) ?? { bytes: 0, ranks: 0 };
      claims.set(rank.gpuUuid, { bytes: bytes + peakBytes + marginBytes, ranks: others + 1 });
    }
    this.#claims = claims;
  }

  /** Serving's claim, and what each rank keeps for graphs. */
  book({ bytes: keptBytes, untakenBytes }: Kept): void {
    const { ledger, engine } = this.#options;
    for (const [gpu, { bytes, ranks }] of this.#claims) {
      const kept = { bytes: ranks * keptBytes, untakenBytes: ranks * untakenBytes };
      ledger.claim(gpu, engine, bytes, kept, this.#extent(gpu));
    }
  }

  #extent(gpu: string): Extent {
    let heldBytes = 0;
    let totalBytes = this.#options.driverTotal?.(gpu) ?? Number.POSITIVE_INFINITY;
    for (const rank of this.#ranks) {
      if (rank.gpuUuid !== gpu) continue;
      heldBytes += rank.reservedBytes;
      totalBytes = Math.min(totalBytes, rank.totalBytes);
    }
    return { totalBytes, heldBytes };
  }

  /** The rank that has the least; undefined while none has reported. */
  least(): RankHeadroom | undefined {
    const { ledger, engine } = this.#options;
    let least: RankHeadroom | undefined;
    for (const rank of this.#ranks) {
      const { freeBytes } = this.#free(rank);
      const spokenForBytes = ledger.offLimits(rank.gpuUuid, engine, freeBytes);
      const bytes = Math.max(freeBytes - spokenForBytes, this.#emptiedBytes(rank));
      if (least !== undefined && least.bytes <= bytes) continue;
      const { gpuUuid: gpu, totalBytes } = rank;
      least = { gpu, totalBytes, freeBytes, spokenForBytes, claim: this.#claim(rank), bytes };
    }
    return least;
  }

  /** Whether so much may be had on every rank at best; where no driver can be asked it may. */
  mayHave(needBytes: number): boolean {
    const { ledger, engine, driverFree } = this.#options;
    return this.#ranks.every((rank) => {
      if (driverFree(rank.gpuUuid) === undefined) return true;
      const mostBytes = this.#mostBytes(rank);
      return mostBytes - ledger.offLimits(rank.gpuUuid, engine, mostBytes) >= needBytes;
    });
  }

  /** Whether a rank has less than serving needs, even at best. */
  get isShort(): boolean {
    const { ledger, engine } = this.#options;
    // Captured graphs are within their own: it is not they that serving is short of. Nor is it
    // short of what its allocator keeps: that gives back what a step wants otherwise.
    return this.#ranks.some(
      (rank) =>
        this.#mostBytes(rank) < ledger.least(rank.gpuUuid, engine) && this.#emptiedBytes(rank) < 0,
    );
  }

  /** Holds memory until it is released, which is when a reading shows what was really taken. */
  hold(bytes: number): () => void {
    const gpus = this.#ranks.map((rank) => rank.gpuUuid);
    return this.#options.ledger.reserve(gpus, this.#options.engine, bytes);
  }

  /** Nothing is kept for this engine until it is booked again. */
  close(): void {
    this.#options.ledger.forget(this.#options.engine);
  }

  /**
   * Free memory at best: what has gone since the engine's last word may be serving's own growth,
   * and then its claim has shrunk by as much, but for what is always left.
   */
  #mostBytes(rank: RankMemory): number {
    const { freeBytes, sinceBytes } = this.#free(rank);
    const { peakBytes, marginBytes } = this.#claim(rank);
    return freeBytes + Math.min(sinceBytes, Math.max(0, peakBytes + marginBytes - FLOOR_BYTES));
  }

  /**
   * Room on a rank once it has emptied torch's cache, as it does for a capture that needs it. First
   * waves leave blocks there that serving can do without, out of memory that no graph had taken.
   */
  #emptiedBytes(rank: RankMemory): number {
    const { cachedBytes, gpuUuid: gpu } = rank;
    if (cachedBytes === undefined) return Number.NEGATIVE_INFINITY;
    const { ledger, engine, marginBytes: margin } = this.#options;
    const { peakBytes, marginBytes } = this.#claim(rank);
    const moreBytes = wholeClaimBytes(rank, margin) - peakBytes - marginBytes;
    const othersBytes = ledger.spokenFor(gpu, engine) + ledger.keptByOthers(gpu, engine);
    // A driver that says more than the engine did may have got it out of this very cache.
    const freeBytes = Math.min(rank.freeBytes, this.#free(rank).freeBytes);
    return freeBytes + cachedBytes - othersBytes - moreBytes;
  }

  #free(rank: RankMemory): FreeReading {
    return freeReading(rank, this.#options.driverFree(rank.gpuUuid), this.isOld);
  }

  #claim(rank: RankMemory): ServingClaim {
    const first = this.#firstRanks.get(rank.rank) ?? rank;
    return servingClaim(rank, first, this.#options.marginBytes);
  }
}
