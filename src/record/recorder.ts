/**
 * Own traffic as a trace: when requests arrived and how long prompt and answer were, no content.
 *
 * A row is written once its request has ended and all that arrived before it have: times in a
 * trace never fall. So what is on disk is a trace at every moment, and a crash loses only requests
 * that were under way and those that arrived after the oldest of them.
 */

import { checkOptions, numberRule, type OptionRule, textRule } from "../check-options.ts";
import { type Clock, systemClock } from "../clock.ts";
import { OptionError } from "../errors.ts";
import { publishProblem } from "../events.ts";
import { TraceFile, traceFileError } from "./trace-file.ts";
import { UsageReader } from "./usage-reader.ts";

export interface TraceRecorderOptions {
  /** A file that doesn't exist yet; gzipped when its name ends in `.gz`. */
  readonly file: string;
  /** Rows written; later requests are left out. 1 to 100,000,000. @default 10000000 */
  readonly requestsMax?: number;
  /** Seconds after which a request that has not ended is left out. 1 to 86,400. @default 900 */
  readonly requestSecondsMax?: number;
  /** Seconds between writes, 0.01 to 3,600. @default 5 */
  readonly flushSeconds?: number;
  /** @default the system's clock */
  readonly clock?: Clock;
}

export interface TraceRecorderCounts {
  /** Requests that are or will be rows. */
  readonly recorded: number;
  /** Of them, those with a length guessed from bytes or events, because no usage was told. */
  readonly estimated: number;
  /** Without an answer, or with one that failed. */
  readonly unanswered: number;
  /** Left out by a limit, or because the file can't be written any more. */
  readonly leftOut: number;
}

/** One request, from its arrival to the end of its answer. */
export interface RecordedRequest {
  /** Bytes of its body; only their number is used. */
  body(bytes: number): void;
  /** A piece of its answer; only `usage` is read, and events are counted. */
  chunk(bytes: Uint8Array): void;
  /** The answer has ended, maybe early: what was generated so far counts. */
  end(): void;
  /** It was refused or failed: it is no row. */
  drop(): void;
}

export interface TraceRecorder extends AsyncDisposable {
  readonly counts: TraceRecorderCounts;
  /** A request arrives now. */
  arrived(): RecordedRequest;
  /** Writes what has ended, and closes the file. Idempotent. */
  close(): Promise<TraceRecorderCounts>;
}

/** Requests held in memory at once: under way, or ended behind one that is. */
const HELD_MAX = 100_000;

const RULES: { readonly [K in keyof TraceRecorderOptions]-?: OptionRule } = {
  file: textRule("the path of a new file"),
  requestsMax: numberRule(1, 100_000_000),
  requestSecondsMax: numberRule(1, 86_400),
  flushSeconds: numberRule(0.01, 3600),
  clock: (value) => (typeof Object(value).now === "function" ? undefined : "a clock"),
};

/**
 * @throws LazygraphError `ERR_LAZYGRAPH_TRACE` when the file is there or can't be created;
 *   OptionError for an option that is unknown, missing or out of range
 */
export async function createTraceRecorder(options: TraceRecorderOptions): Promise<TraceRecorder> {
  checkOptions(options, RULES);
  // Absent is a mistake as well: there is no default.
  if (options.file === undefined) {
    throw new OptionError("file", "Expected file to be the path of a new file, got nothing.");
  }
  return new Recorder(await TraceFile.create(options.file), options);
}

interface Held {
  readonly atSeconds: number;
  state: "open" | "ended" | "dropped";
  promptTokens: number;
  outputTokens: number;
}

class Recorder implements TraceRecorder {
  readonly #file: TraceFile;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #requestsMax: number;
  readonly #requestSecondsMax: number;
  readonly #flushSeconds: number;
  readonly #startSeconds: number;
  readonly #counts = { recorded: 0, estimated: 0, unanswered: 0, leftOut: 0 };
  /** In order of arrival. */
  #held: Held[] = [];
  #writing: Promise<void> = Promise.resolve();
  #cancelFlush: () => void = () => {};
  #failed = false;
  #closing: Promise<TraceRecorderCounts> | undefined;

  constructor(file: TraceFile, options: TraceRecorderOptions) {
    this.#file = file;
    this.#path = options.file;
    this.#clock = options.clock ?? systemClock;
    this.#requestsMax = options.requestsMax ?? 10_000_000;
    this.#requestSecondsMax = options.requestSecondsMax ?? 900;
    this.#flushSeconds = options.flushSeconds ?? 5;
    this.#startSeconds = this.#clock.now();
    this.#flushLater();
  }

  get counts(): TraceRecorderCounts {
    return { ...this.#counts };
  }

  arrived(): RecordedRequest {
    const full = this.#counts.recorded + this.#held.length >= this.#requestsMax;
    const overloaded = this.#held.length >= HELD_MAX;
    if (full || overloaded || this.#failed || this.#closing !== undefined) {
      this.#counts.leftOut++;
      return { body() {}, chunk() {}, end() {}, drop() {} };
    }
    const held: Held = {
      atSeconds: this.#clock.now() - this.#startSeconds,
      state: "open",
      promptTokens: 0,
      outputTokens: 0,
    };
    this.#held.push(held);
    return this.#request(held);
  }

  close(): Promise<TraceRecorderCounts> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #request(held: Held): RecordedRequest {
    const usage = new UsageReader();
    let bodyBytes = 0;
    const drop = (): void => {
      if (held.state !== "open") return;
      held.state = "dropped";
      this.#counts.unanswered++;
    };
    return {
      body(bytes) {
        bodyBytes += bytes;
      },
      chunk(bytes) {
        if (held.state === "open") usage.push(bytes);
      },
      end: () => {
        const counts = usage.counts(bodyBytes);
        if (counts === undefined) drop();
        if (counts === undefined || held.state !== "open") return;
        held.promptTokens = counts.promptTokens;
        held.outputTokens = counts.outputTokens;
        held.state = "ended";
        if (counts.estimated) this.#counts.estimated++;
      },
      drop,
    };
  }

  #flushLater(): void {
    this.#cancelFlush = this.#clock.after(this.#flushSeconds, () => {
      this.#flush(this.#clock.now() - this.#startSeconds - this.#requestSecondsMax);
      if (this.#closing === undefined) this.#flushLater();
    });
  }

  /** Writes the rows that nothing before them holds back; who arrived until `expiredSeconds` doesn't. */
  #flush(expiredSeconds: number): void {
    let count = 0;
    let rows = "";
    for (const held of this.#held) {
      if (held.state === "open") {
        if (held.atSeconds > expiredSeconds) break;
        held.state = "dropped";
        this.#counts.leftOut++;
      }
      count++;
      if (held.state !== "ended") continue;
      this.#counts.recorded++;
      rows += `${held.atSeconds.toFixed(6)},${held.promptTokens},${held.outputTokens}\n`;
    }
    if (count > 0) this.#held = this.#held.slice(count);
    if (rows !== "") this.#write(rows);
  }

  #write(rows: string): void {
    this.#writing = this.#writing.then(async () => {
      if (this.#failed) return;
      try {
        await this.#file.append(rows);
      } catch (error) {
        // A full disk must not take the gateway down: recording ends, and says so.
        this.#failed = true;
        const { code, message } = traceFileError(this.#path, error);
        publishProblem("", code, message);
      }
    });
  }

  async #close(): Promise<TraceRecorderCounts> {
    this.#cancelFlush();
    this.#flush(Number.POSITIVE_INFINITY);
    await this.#writing;
    await this.#file.close();
    return this.counts;
  }
}
