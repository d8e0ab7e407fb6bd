/**
 * This host's GPUs as the controller needs them: the latest free figure of each that an engine is
 * on, and a word when free memory crosses what is spoken for. The driver is opened when the first
 * engine has reported a GPU, and never holds up anything but a capture's own reading.
 */

import { type Clock, withinSeconds } from "../base/clock.ts";
import { canonicalUuid } from "../gpu/device.ts";
import { type GpuMemory, type GpuUnavailable, openGpuMemory } from "../gpu/memory.ts";
import { WATCHES_MAX } from "../gpu/reader.ts";
import type { GpuWatch } from "../gpu/watch.ts";

const WATCH_MS = 250;
/** A threshold that moves by less is left where it is. */
const THRESHOLD_STEP_BYTES = 64 * 1024 * 1024;
/** A reading younger than this need not be repeated where one takes long. */
const SLOW_READING_SECONDS = 1;
/** A reading older than this is not taken for the present. */
const READING_SECONDS_MAX = 10;
/** A driver that is stuck must not hold up captures, or a close, for longer than this. */
const WAIT_SECONDS_MAX = 2;

export interface HostGpusOptions {
  readonly clock: Clock;
  /** Free memory of a GPU fell below its threshold, or rose over it again. */
  readonly onNews: () => void;
  /** A GPU's memory can't be read any more; told once for each GPU. */
  readonly onFault: (gpu: string, error: unknown) => void;
  /** @default openGpuMemory */
  readonly open?: () => Promise<GpuMemory | GpuUnavailable>;
}

interface Followed {
  freeBytes: number | undefined;
  atSeconds: number;
  thresholdBytes: number;
  totalBytes: number;
  /** The reading under way: who comes meanwhile waits for that. */
  reading: Promise<void> | undefined;
  /** Whether somebody has waited for that in vain. */
  stuck: boolean;
  watch: GpuWatch | undefined;
  /** Whether a watch is being started or replaced. */
  starting: boolean;
  faulty: boolean;
}

export class HostGpus {
  readonly #options: HostGpusOptions;
  readonly #followed = new Map<string, Followed>();
  #memory: GpuMemory | undefined;
  #opening: Promise<void> | undefined;
  #closed = false;

  constructor(options: HostGpusOptions) {
    this.#options = options;
  }

  /** What reads, once something has been asked for and there is a driver. */
  get source(): GpuMemory["source"] | undefined {
    return this.#memory?.source;
  }

  /** Free bytes of a GPU of this host; undefined where it is another host's, or not read lately. */
  freeBytes(gpu: string): number | undefined {
    const followed = this.#followed.get(canonicalUuid(gpu));
    if (followed === undefined) return undefined;
    const age = this.#options.clock.now() - followed.atSeconds;
    return age <= READING_SECONDS_MAX ? followed.freeBytes : undefined;
  }

  /** All bytes of a GPU of this host; undefined where it is another host's. */
  totalBytes(gpu: string): number | undefined {
    return this.#followed.get(canonicalUuid(gpu))?.totalBytes;
  }

  /** Resolves when the driver has been opened, or found missing, and these GPUs have been read. */
  async follow(gpus: readonly string[], spokenFor: (gpu: string) => number): Promise<void> {
    if (this.#closed) return;
    this.#opening ??= this.#open();
    await this.#opening;
    if (this.#memory === undefined) return;
    for (const gpu of gpus) await this.#begin(gpu);
    await this.refresh(gpus);
    for (const gpu of gpus) this.threshold(gpu, spokenFor(gpu));
  }

  /** Reads these GPUs, those that are this host's, for two seconds at most. Never rejects. */
  async refresh(gpus: readonly string[]): Promise<void> {
    const followed = [...new Set(gpus.map(canonicalUuid))].filter((gpu) => this.#followed.has(gpu));
    if (followed.length === 0) return;
    const readings = Promise.all(followed.map((gpu) => this.#read(gpu)));
    await withinSeconds(
      this.#options.clock,
      WAIT_SECONDS_MAX,
      readings.then(() => undefined),
    );
    for (const gpu of followed) {
      const entry = this.#followed.get(gpu);
      if (entry !== undefined) entry.stuck = entry.reading !== undefined;
    }
  }

  /** Sets what free memory may not fall below without a word. */
  threshold(name: string, bytes: number): void {
    const gpu = canonicalUuid(name);
    const followed = this.#followed.get(gpu);
    if (followed === undefined || followed.starting || followed.freeBytes === undefined) return;
    const most = Math.max(0, followed.totalBytes - THRESHOLD_STEP_BYTES);
    const wanted = Math.round(Math.min(most, Math.max(0, bytes)));
    const near = Math.abs(wanted - followed.thresholdBytes) < THRESHOLD_STEP_BYTES;
    if (followed.watch !== undefined && near) return;
    followed.starting = true;
    void this.#watch(gpu, followed, wanted);
  }

  /** Within two seconds: what a stuck driver has not let go of by then, it lets go of later. */
  async close(): Promise<void> {
    this.#closed = true;
    await withinSeconds(this.#options.clock, WAIT_SECONDS_MAX, this.#close());
    this.#followed.clear();
  }

  async #close(): Promise<void> {
    await this.#opening;
    // Whoever is being opened while this closes is closed by whoever opens it.
    await this.#memory?.close().catch(() => undefined);
  }

  async #open(): Promise<void> {
    try {
      const opened = await (this.#options.open ?? openGpuMemory)();
      if (!opened.available) return;
      if (this.#closed) await opened.close();
      else this.#memory = opened;
    } catch (error) {
      this.#options.onFault("of this host", error);
    }
  }

  async #begin(name: string): Promise<void> {
    const gpu = canonicalUuid(name);
    if (this.#followed.has(gpu) || this.#followed.size >= WATCHES_MAX) return;
    try {
      const reading = await this.#memory?.read(gpu);
      // Of two engines on one GPU that join at once, both come here.
      if (reading === undefined || this.#closed || this.#followed.has(gpu)) return;
      this.#followed.set(gpu, {
        freeBytes: reading.freeBytes,
        atSeconds: this.#options.clock.now(),
        thresholdBytes: 0,
        totalBytes: reading.totalBytes,
        reading: undefined,
        stuck: false,
        watch: undefined,
        starting: false,
        faulty: false,
      });
    } catch {
      // Another host's GPU, or one that this host can't read: the engine's own figure counts.
    }
  }

  async #read(gpu: string): Promise<void> {
    const memory = this.#memory;
    const followed = this.#followed.get(gpu);
    if (followed === undefined || memory === undefined) return;
    const young = this.#options.clock.now() - followed.atSeconds < SLOW_READING_SECONDS;
    if (memory.precisionBytes > 1 && young) return;
    if (followed.stuck) return;
    followed.reading ??= this.#readNow(gpu, followed, memory).finally(() => {
      followed.reading = undefined;
      followed.stuck = false;
    });
    await followed.reading;
  }

  async #readNow(gpu: string, followed: Followed, memory: GpuMemory): Promise<void> {
    try {
      const { freeBytes } = await memory.read(gpu);
      followed.freeBytes = freeBytes;
      followed.atSeconds = this.#options.clock.now();
      followed.faulty = false;
    } catch (error) {
      this.#fault(gpu, followed, error);
    }
  }

  async #watch(gpu: string, followed: Followed, belowBytes: number): Promise<void> {
    try {
      void followed.watch?.close();
      // Should the new one fail, the old one must not pass for it.
      followed.watch = undefined;
      const watch = await this.#memory?.watch(
        { uuid: gpu, intervalMs: WATCH_MS, belowBytes, onCallbackError: () => undefined },
        (event) => {
          if (event.kind === "fault") {
            this.#fault(gpu, followed, event.error);
            return;
          }
          followed.freeBytes = event.reading.freeBytes;
          followed.atSeconds = this.#options.clock.now();
          followed.faulty = false;
          this.#options.onNews();
        },
      );
      followed.watch = watch;
      followed.thresholdBytes = belowBytes;
    } catch (error) {
      this.#fault(gpu, followed, error);
    } finally {
      followed.starting = false;
    }
  }

  #fault(gpu: string, followed: Followed, error: unknown): void {
    followed.freeBytes = undefined;
    if (followed.faulty || this.#closed) return;
    followed.faulty = true;
    this.#options.onFault(gpu, error);
  }
}
