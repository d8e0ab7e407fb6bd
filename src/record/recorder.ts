/**
 * Own traffic as a trace: when requests arrived and how long prompt and answer were, no content.
 *
 * A row is written once its request has ended and all that arrived before it have: times in a
 * trace never fall. So what is on disk is a trace at every moment, and a crash loses only requests
 * that were under way and those that arrived after the oldest of them.
 */

import { checkOptions, type OptionRules, rule, textRule } from "../base/check-options.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { OptionError } from "../base/errors.ts";
import { number } from "../base/schema.ts";
import { publishProblem } from "../engine/events.ts";
import { type OutcomeSink, type RecordedRequest, UNWATCHED, watchRequest } from "./request.ts";
import type { LeftOutReason, TokenCounts, UnansweredReason, UnrecordedReason } from "./row.ts";
import { TraceFile, traceFileError } from "./trace-file.ts";

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

/** Every request is in exactly one of recorded, unanswered, leftOut and passed. */
export interface TraceRecorderCounts {
  /** Rows in the file. */
  readonly recorded: number;
  /** Of them, those with a length guessed from bytes or events, because no usage was told. */
  readonly estimated: number;
  /** Of them, those whose client left, or was cut off, before the end: what came until then. */
  readonly leftEarly: number;
  /** Without an answer, or with one that is no completion. */
  readonly unanswered: number;
  /** Left out by a limit, or because the file can't be written any more. */
  readonly leftOut: number;
  /** That make no engine generate, such as those for a list of models. */
  readonly passed: number;
  /** How many of the unanswered and left out for which reason. */
  readonly reasons: Readonly<Partial<Record<UnrecordedReason, number>>>;
}

export interface TraceRecorder extends AsyncDisposable {
  readonly counts: TraceRecorderCounts;
  /** A request that makes the engine generate arrives now. */
  arrived(): RecordedRequest;
  /** A request of another kind passes: it is counted, and nothing else. */
  passed(): void;
  /** Writes what has ended, and closes the file. Idempotent. */
  close(): Promise<TraceRecorderCounts>;
}

/** Requests held in memory at once: under way, or ended behind one that is. */
const HELD_MAX = 100_000;

const RULES: OptionRules<TraceRecorderOptions> = {
  file: textRule("the path of a new file"),
  requestsMax: number(1, 100_000_000),
  requestSecondsMax: number(1, 86_400),
  flushSeconds: number(0.01, 3600),
  clock: rule("a clock", (value) => typeof Object(value).now === "function"),
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
  estimated: boolean;
  leftEarly: boolean;
}

class Recorder implements TraceRecorder {
  readonly #file: TraceFile;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #requestsMax: number;
  readonly #requestSecondsMax: number;
  readonly #flushSeconds: number;
  readonly #startSeconds: number;
  readonly #counts = {
    recorded: 0,
    estimated: 0,
    leftEarly: 0,
    unanswered: 0,
    leftOut: 0,
    passed: 0,
  };
  readonly #reasons: Partial<Record<UnrecordedReason, number>> = {};
  /** In order of arrival. */
  #held: Held[] = [];
  #writing: Promise<void> = Promise.resolve();
  #cancelFlush: () => void = () => {};
  #failed = false;
  /** Rows that were handed to the file, written or not yet. */
  #rows = 0;
  /** Answers that have ended and are not unpacked yet. */
  #unpacking = 0;
  #onUnpacked: () => void = () => {};
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
    return { ...this.#counts, reasons: { ...this.#reasons } };
  }

  passed(): void {
    this.#counts.passed++;
  }

  arrived(): RecordedRequest {
    const refusal = this.#refusal();
    if (refusal !== undefined) {
      this.#leaveOut(refusal);
      return UNWATCHED;
    }
    const held: Held = {
      atSeconds: this.#clock.now() - this.#startSeconds,
      state: "open",
      promptTokens: 0,
      outputTokens: 0,
      estimated: false,
      leftEarly: false,
    };
    this.#held.push(held);
    return watchRequest(this.#sink(held));
  }

  close(): Promise<TraceRecorderCounts> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #refusal(): LeftOutReason | undefined {
    if (this.#closing !== undefined) return "closed";
    if (this.#failed) return "file";
    if (this.#rows + this.#held.length >= this.#requestsMax) return "rows";
    return this.#held.length >= HELD_MAX ? "memory" : undefined;
  }

  #leaveOut(reason: LeftOutReason): void {
    this.#counts.leftOut++;
    this.#because(reason);
  }

  #because(reason: UnrecordedReason): void {
    this.#reasons[reason] = (this.#reasons[reason] ?? 0) + 1;
  }

  #sink(held: Held): OutcomeSink {
    let unpacking = false;
    return {
      ending: () => {
        unpacking = true;
        this.#unpacking++;
      },
      ended: (outcome) => {
        this.#ended(held, outcome);
        if (unpacking) this.#unpacking--;
        if (this.#unpacking === 0) this.#onUnpacked();
      },
    };
  }

  #ended(held: Held, outcome: TokenCounts | UnansweredReason): void {
    // It took too long, and is in another count.
    if (held.state !== "open") return;
    if (typeof outcome === "string") {
      held.state = "dropped";
      this.#counts.unanswered++;
      this.#because(outcome);
      return;
    }
    held.state = "ended";
    held.promptTokens = outcome.promptTokens;
    held.outputTokens = outcome.outputTokens;
    held.estimated = outcome.estimated;
    held.leftEarly = outcome.leftEarly;
  }

  #flushLater(): void {
    this.#cancelFlush = this.#clock.after(this.#flushSeconds, () => {
      this.#flush(this.#clock.now() - this.#startSeconds - this.#requestSecondsMax, "too_long");
      if (this.#closing === undefined) this.#flushLater();
    });
  }

  /** Writes the rows that nothing before them holds back; who arrived until `expiredSeconds` doesn't. */
  #flush(expiredSeconds: number, reason: LeftOutReason): void {
    let count = 0;
    const rows: Held[] = [];
    for (const held of this.#held) {
      if (held.state === "open") {
        if (held.atSeconds > expiredSeconds) break;
        held.state = "dropped";
        this.#leaveOut(reason);
      }
      count++;
      if (held.state === "ended") rows.push(held);
    }
    if (count > 0) this.#held = this.#held.slice(count);
    if (rows.length > 0) this.#write(rows);
  }

  #write(rows: readonly Held[]): void {
    this.#rows += rows.length;
    this.#writing = this.#writing.then(async () => {
      if (!this.#failed) await this.#append(rows);
      if (this.#failed) for (const _ of rows) this.#leaveOut("file");
    });
  }

  async #append(rows: readonly Held[]): Promise<void> {
    const lines = rows.map(
      ({ atSeconds, promptTokens, outputTokens }) =>
        `${atSeconds.toFixed(6)},${promptTokens},${outputTokens}\n`,
    );
    try {
      await this.#file.append(lines.join(""));
      this.#counts.recorded += rows.length;
      this.#counts.estimated += rows.filter(({ estimated }) => estimated).length;
      this.#counts.leftEarly += rows.filter(({ leftEarly }) => leftEarly).length;
    } catch (error) {
      // A full disk must not take the gateway down: recording ends, and says so.
      this.#failed = true;
      const { code, message } = traceFileError(this.#path, error);
      publishProblem("", code, message);
    }
  }

  /** What rotates or tidies a folder takes the rows along, and leaves them counted. */
  async #tellMoved(): Promise<void> {
    if (this.#failed || (await this.#file.isInPlace().catch(() => false))) return;
    const message =
      `Expected ${this.#path} to stay as it is written until the end, got another file or none ` +
      "there: its rows are where it was moved to, if anywhere.";
    publishProblem("", "ERR_LAZYGRAPH_TRACE", message);
  }

  async #close(): Promise<TraceRecorderCounts> {
    this.#cancelFlush();
    if (this.#unpacking > 0) {
      await new Promise<void>((resolve) => {
        this.#onUnpacked = resolve;
      });
    }
    this.#flush(Number.POSITIVE_INFINITY, "closed");
    await this.#writing;
    await this.#tellMoved();
    await this.#file.close();
    return this.counts;
  }
}
