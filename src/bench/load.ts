/**
 * Loads: when requests arrive and how long they are. A load becomes a schedule before anything is
 * started, so that every mode, the simulator and other clients get the very same one.
 */

import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import { createRandom, type Random } from "../base/random.ts";
import {
  readTrace,
  type TraceAbout,
  type TraceOptions,
  type TraceRequest,
  type TraceSkip,
} from "../trace/trace.ts";
import { gamma } from "./gamma.ts";
import { type Conversation, readShareGpt } from "./sharegpt.ts";

/** A number of tokens, or the ends of a range to draw from evenly. */
export type Length = number | readonly [min: number, max: number];

/** Where the schedule's second 0 lies. */
export const STARTS = ["spawn", "ready", "settled"] as const;
export type Start = (typeof STARTS)[number];

export const ARRIVALS = ["constant", "poisson", "gamma", "ramp", "trace"] as const;
export type ArrivalKind = (typeof ARRIVALS)[number];

/** Names are those of `vllm bench serve` where it has the same thing. */
export interface Load {
  readonly arrivals: ArrivalKind;
  /** Mean arrivals a second; of all kinds but ramp and trace. */
  readonly requestRate?: number;
  /** Shape of the gamma distribution of the gaps: 1 is Poisson, below 1 comes in bursts. */
  readonly burstiness?: number;
  readonly rampUpStrategy?: "linear" | "exponential";
  readonly rampUpStartRps?: number;
  readonly rampUpEndRps?: number;
  /** Request trace, of any format that is read; gives the arrivals of kind trace, and lengths. */
  readonly trace?: string;
  /** Divides the trace's times. @default 1 */
  readonly speed?: number;
  /** ShareGPT-format JSON; gives texts and lengths. */
  readonly shareGpt?: string;
  readonly inputLen?: Length;
  readonly outputLen?: Length;
  /** Longer prompts and answers are cut to this. @default none */
  readonly inputLenMax?: number;
  readonly outputLenMax?: number;
  /** At most this many requests. */
  readonly numPrompts?: number;
  /** No arrivals later than this. */
  readonly seconds?: number;
  /** @default 0 */
  readonly seed?: number;
  /** `spawn`: requests wait at the client until the engine is ready. @default "ready" */
  readonly start?: Start;
}

export interface ScheduledRequest extends TraceRequest {
  /** Tokens of one block of `hashIds`. */
  readonly blockTokens?: number;
  /** What to send; made up to `promptTokens` words where absent. */
  readonly text?: string;
}

/** More than this in one run is a slip of a unit. */
const REQUESTS_MAX = 1_000_000;
/** Arrivals a second beyond what one process can send. */
export const RATE_MAX = 10_000;

/** Is told what of a file is not used, in a sentence. */
export type OnNote = (sentence: string) => void;

/** Who is told of what a load's files have and is not used. */
export interface LoadNotes {
  readonly onNote?: OnNote | undefined;
  /** Of a trace: each row that nobody can replay. */
  readonly onSkip?: OnSkip;
}

/** @throws OptionError, or LazygraphError `ERR_LAZYGRAPH_TRACE` for a file that can't be used */
export async function scheduleOf(
  load: Load,
  { onNote, onSkip = () => undefined }: LoadNotes = {},
): Promise<ScheduledRequest[]> {
  const random = createRandom(load.seed ?? 0);
  const lengths = await lengthsOf(load, random, { onNote, onSkip });
  const requests: ScheduledRequest[] = [];
  for await (const arrival of arrivalsOf(load, random, onSkip)) {
    if (load.seconds !== undefined && arrival.atSeconds > load.seconds) break;
    const { promptTokens, outputTokens, text, hashIds, blockTokens } = lengths(arrival);
    requests.push({
      atSeconds: arrival.atSeconds,
      promptTokens: Math.min(promptTokens, load.inputLenMax ?? promptTokens),
      outputTokens: Math.min(outputTokens, load.outputLenMax ?? outputTokens),
      ...(text === undefined ? {} : { text }),
      ...(hashIds === undefined ? {} : { hashIds }),
      ...(blockTokens === undefined ? {} : { blockTokens }),
    });
    if (requests.length >= (load.numPrompts ?? REQUESTS_MAX)) break;
  }
  return requests;
}

export type OnSkip = (skip: TraceSkip) => void;

type Lengths = (arrival: Arrival) => Omit<ScheduledRequest, "atSeconds">;

interface Arrival {
  readonly atSeconds: number;
  /** The trace's own lengths and blocks, where arrivals are a trace's. */
  readonly promptTokens?: number;
  readonly outputTokens?: number;
  readonly hashIds?: readonly number[];
  readonly blockTokens?: number;
}

/** What is given beats the file's own lengths. */
async function lengthsOf(load: Load, random: Random, notes: Required<LoadNotes>): Promise<Lengths> {
  const { inputLen, outputLen } = load;
  const source = await lengthSource(load, random, notes);
  return (arrival) => {
    const found = source(arrival);
    const promptTokens = inputLen === undefined ? found.promptTokens : drawLength(inputLen, random);
    const outputTokens =
      outputLen === undefined ? found.outputTokens : drawLength(outputLen, random);
    // A text has the length it has: where another one is given, words are made up.
    const fits = promptTokens <= (load.inputLenMax ?? promptTokens);
    const text = inputLen === undefined && fits ? found.text : undefined;
    // So do a trace's blocks.
    const { hashIds, blockTokens } = inputLen === undefined ? found : {};
    return {
      ...{ promptTokens, outputTokens },
      ...(text === undefined ? {} : { text }),
      ...(hashIds === undefined || blockTokens === undefined ? {} : { hashIds, blockTokens }),
    };
  };
}

const DEFAULT_INPUT_LEN = 256;
const DEFAULT_OUTPUT_LEN = 128;

async function lengthSource(
  load: Load,
  random: Random,
  { onNote, onSkip }: Required<LoadNotes>,
): Promise<Lengths> {
  if (load.shareGpt !== undefined) {
    const { conversations, note } = await readShareGpt(load.shareGpt);
    if (note !== undefined) onNote?.(note);
    return () => {
      const pick = conversations[Math.floor(random() * conversations.length)] as Conversation;
      return { promptTokens: pick.inputLen, outputTokens: pick.outputLen, text: pick.prompt };
    };
  }
  if (load.trace !== undefined && load.arrivals !== "trace") {
    const rows: TraceRequest[] = [];
    const options = { requests: REQUESTS_MAX, onSkip };
    for await (const row of withBlocks(load.trace, options)) rows.push(row);
    return () => rows[Math.floor(random() * rows.length)] as TraceRequest;
  }
  return ({ promptTokens = DEFAULT_INPUT_LEN, outputTokens = DEFAULT_OUTPUT_LEN, ...blocks }) => ({
    ...blocks,
    promptTokens,
    outputTokens,
  });
}

function drawLength(length: Length, random: Random): number {
  if (typeof length === "number") return length;
  const [min, max] = length;
  return min + Math.floor(random() * (max - min + 1));
}

async function* arrivalsOf(
  load: Load,
  random: Random,
  onSkip: OnSkip,
): AsyncGenerator<Arrival, void, void> {
  if (load.arrivals === "trace") {
    if (load.trace === undefined)
      throw new OptionError("trace", "Expected a trace file, got none.");
    const { speed, seconds, numPrompts } = load;
    yield* withBlocks(load.trace, {
      onSkip,
      ...(speed === undefined ? {} : { speed }),
      ...(seconds === undefined ? {} : { seconds }),
      ...(numPrompts === undefined ? {} : { requests: numPrompts }),
    });
    return;
  }
  const gap = gapOf(load, random);
  let atSeconds = 0;
  for (let index = 0; index < REQUESTS_MAX; index++) {
    yield { atSeconds };
    atSeconds += gap(index, atSeconds);
  }
}

/** With the tokens of a block beside its blocks. */
async function* withBlocks(
  file: string,
  options: TraceOptions,
): AsyncGenerator<TraceRequest & { readonly blockTokens?: number }, void, void> {
  let blockTokens: number | undefined;
  const onFormat = (about: TraceAbout): void => {
    blockTokens = about.blockTokens;
  };
  for await (const row of readTrace(file, { ...options, onFormat })) {
    yield row.hashIds === undefined || blockTokens === undefined ? row : { ...row, blockTokens };
  }
}

/** Seconds from request `index`, at `atSeconds`, to the next one. */
function gapOf(load: Load, random: Random): (index: number, atSeconds: number) => number {
  const { requestRate = 1 } = load;
  switch (load.arrivals) {
    case "poisson":
      return () => gamma(random, 1) / requestRate;
    case "gamma": {
      const shape = load.burstiness ?? 1;
      return () => gamma(random, shape) / (requestRate * shape);
    }
    case "ramp":
      return rampGap(load, random);
    default:
      return () => 1 / requestRate;
  }
}

/**
 * The rate goes from start to end with the requests, as `vllm bench serve` has it, or with the
 * seconds where only those are given.
 */
function rampGap(load: Load, random: Random): (index: number, atSeconds: number) => number {
  const { rampUpStartRps = 1, rampUpEndRps = 1, numPrompts, seconds = 1, burstiness = 1 } = load;
  return (index, atSeconds) => {
    const share =
      numPrompts === undefined ? atSeconds / seconds : index / Math.max(1, numPrompts - 1);
    const rate =
      load.rampUpStrategy === "exponential"
        ? rampUpStartRps * (rampUpEndRps / rampUpStartRps) ** share
        : rampUpStartRps + (rampUpEndRps - rampUpStartRps) * share;
    return gamma(random, burstiness) / (Math.max(rate, 1e-3) * burstiness);
  };
}

/** The schedule as a trace file, which `lazygraph simulate` reads. */
export function scheduleCsv(schedule: readonly ScheduledRequest[]): string {
  const rows = schedule.map(({ atSeconds, promptTokens, outputTokens }) => {
    return `${Number(atSeconds.toFixed(6))},${promptTokens},${outputTokens}`;
  });
  return `seconds,prompt_tokens,output_tokens\n${rows.join("\n")}\n`;
}

/** A load in words. */
export function loadText(load: Load | undefined): string {
  if (load === undefined) return "";
  const { trace, shareGpt, speed, seconds, numPrompts, inputLen, outputLen } = load;
  const parts = [
    arrivalsText(load),
    trace === undefined
      ? undefined
      : `trace ${trace}${speed === undefined ? "" : ` at speed ${speed}`}`,
    shareGpt === undefined ? undefined : `texts of ${shareGpt}`,
    inputLen === undefined ? undefined : `prompts of ${lengthText(inputLen)} tokens`,
    outputLen === undefined ? undefined : `answers of ${lengthText(outputLen)} tokens`,
    load.inputLenMax === undefined ? undefined : `prompts cut to ${load.inputLenMax}`,
    load.outputLenMax === undefined ? undefined : `answers cut to ${load.outputLenMax}`,
    seconds === undefined ? undefined : `arrivals for ${seconds} s`,
    numPrompts === undefined ? undefined : `at most ${counted(numPrompts, "request")}`,
    `counted from ${load.start ?? "ready"}`,
    `seed ${load.seed ?? 0}`,
  ];
  return `${parts.filter((part) => part !== undefined).join(", ")}.`;
}

function arrivalsText(load: Load): string {
  const { requestRate, burstiness, rampUpStartRps, rampUpEndRps, rampUpStrategy } = load;
  switch (load.arrivals) {
    case "trace":
      return "Arrivals of a trace";
    case "ramp":
      return `A ${rampUpStrategy ?? "linear"} ramp from ${rampUpStartRps} to ${rampUpEndRps} a second`;
    case "gamma":
      return `Gamma arrivals, ${requestRate} a second, burstiness ${burstiness ?? 1}`;
    case "poisson":
      return `Poisson arrivals, ${requestRate} a second`;
    case "constant":
      return `Constant arrivals, ${requestRate} a second`;
  }
}

function lengthText(length: Length): string {
  return typeof length === "number" ? String(length) : `${length[0]} to ${length[1]}`;
}
