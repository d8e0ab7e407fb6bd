/**
 * The client's side of a run in virtual time: which request goes out when, and what came of each.
 * The order is that of a run in real time: one small request once the engine is ready, the warm-up,
 * then the schedule; or the schedule from the spawn, whose requests wait for the engine.
 */

import { micros, rounded } from "../base/units.ts";
import type { Arrival, Arrivals } from "../sim/model/drive.ts";
import type { ScheduledRequest } from "./load.ts";
import type { RequestRecord } from "./samples.ts";

export interface VirtualLoadOptions {
  readonly schedule: readonly ScheduledRequest[];
  readonly fromSpawn: boolean;
  readonly numWarmups: number;
  readonly onRecord: (record: RequestRecord) => void;
}

export const WARM_UPS_AT_ONCE = 8;
/** For the time to the first token, whatever the schedule begins with. */
export const FIRST_REQUEST = { promptTokens: 16, outputTokens: 1 } as const;

interface Flight {
  readonly index: number;
  readonly dueSeconds: number;
  readonly sent: Arrival;
  readonly itlMicros: number[];
  firstSeconds: number | undefined;
  lastSeconds: number;
}

interface Waiting {
  readonly index: number;
  readonly dueSeconds: number;
  readonly sent: Arrival;
}

export class VirtualLoad implements Arrivals {
  next: Arrival | undefined;
  /** Of the schedule's second 0, once it is known. */
  originSeconds: number | undefined;
  readonly #options: VirtualLoadOptions;
  readonly #flights = new Map<number, Flight>();
  readonly #warmUps: Waiting[] = [];
  #readySeconds: number | undefined;
  #warmUpsMade = 0;
  #warmUpsDone = 0;
  #scheduled = 0;
  #done = 0;
  #tag = 0;
  #waiting: Waiting | undefined;

  constructor(options: VirtualLoadOptions) {
    this.#options = options;
    if (options.fromSpawn) this.originSeconds = 0;
  }

  /** Everything of the schedule has come to its end. */
  get done(): boolean {
    return this.originSeconds !== undefined && this.#done === this.#options.schedule.length;
  }

  /** The warm-up is over, so that the schedule may begin. */
  get warm(): boolean {
    const { numWarmups, schedule } = this.#options;
    const wanted = 1 + (schedule.length === 0 ? 0 : numWarmups);
    return this.originSeconds === undefined && this.#warmUpsDone === wanted;
  }

  /** The engine answers from now on. */
  ready(atSeconds: number): void {
    this.#readySeconds = atSeconds;
    if (this.originSeconds === undefined) this.#warmUp(-1, FIRST_REQUEST, atSeconds);
    else this.#choose();
  }

  begin(atSeconds: number): void {
    this.originSeconds = atSeconds;
    this.#choose();
  }

  shift(taken: boolean): void {
    const sent = this.#waiting;
    if (sent === undefined) return;
    const tag = sent.sent.tag ?? 0;
    const begun = { ...sent, itlMicros: [], firstSeconds: undefined, lastSeconds: Number.NaN };
    if (this.#warmUps[0] === sent) this.#warmUps.shift();
    else this.#scheduled++;
    if (taken) this.#flights.set(tag, begun);
    else this.#end(begun, sent.sent.atSeconds, false);
    this.#choose();
  }

  /** One token of a request; `left` more are to come. */
  token(tag: number, left: number, atSeconds: number): void {
    const flight = this.#flights.get(tag);
    if (flight === undefined) return;
    if (flight.firstSeconds === undefined) flight.firstSeconds = atSeconds;
    else flight.itlMicros.push(micros(atSeconds - flight.lastSeconds));
    flight.lastSeconds = atSeconds;
    if (left > 0) return;
    this.#flights.delete(tag);
    this.#end(flight, atSeconds, true);
  }

  #end(flight: Flight, atSeconds: number, answered: boolean): void {
    const warmUp = flight.index < 0;
    this.#options.onRecord(recordOf(flight, answered));
    if (!warmUp) this.#done++;
    else {
      this.#warmUpsDone++;
      this.#nextWarmUps(atSeconds);
    }
  }

  /** The first request goes out alone, the others a few at once. */
  #nextWarmUps(atSeconds: number): void {
    const { numWarmups, schedule } = this.#options;
    if (schedule.length === 0) return;
    const openMax = this.#warmUpsDone - 1 + WARM_UPS_AT_ONCE;
    while (this.#warmUpsMade < Math.min(numWarmups, openMax)) {
      const index = this.#warmUpsMade++;
      const like = schedule[index % schedule.length] as ScheduledRequest;
      this.#warmUp(-2 - index, like, atSeconds);
    }
  }

  #warmUp(
    index: number,
    { promptTokens, outputTokens }: Omit<ScheduledRequest, "atSeconds">,
    atSeconds: number,
  ): void {
    const sent = { atSeconds, promptTokens, outputTokens, tag: ++this.#tag };
    this.#warmUps.push({ index, dueSeconds: atSeconds, sent });
    this.#choose();
  }

  #choose(): void {
    const [warmUp] = this.#warmUps;
    this.#waiting = warmUp ?? this.#ofSchedule();
    this.next = this.#waiting?.sent;
  }

  #ofSchedule(): Waiting | undefined {
    const request = this.#options.schedule[this.#scheduled];
    const { originSeconds } = this;
    // An engine that isn't ready is asked nothing: what is due waits at the client.
    if (request === undefined || originSeconds === undefined || this.#readySeconds === undefined) {
      return undefined;
    }
    const { promptTokens, outputTokens } = request;
    const dueSeconds = originSeconds + request.atSeconds;
    const atSeconds = Math.max(dueSeconds, this.#readySeconds);
    const sent = { atSeconds, promptTokens, outputTokens, tag: ++this.#tag };
    return { index: this.#scheduled, dueSeconds, sent };
  }
}

function recordOf(flight: Flight, answered: boolean): RequestRecord {
  const { index, dueSeconds, sent, firstSeconds, lastSeconds, itlMicros } = flight;
  const { promptTokens, outputTokens, atSeconds } = sent;
  const wanted = {
    ...{ index, warmUp: index < 0, dueSeconds: rounded(dueSeconds) },
    ...{ sentSeconds: rounded(atSeconds), itlMicros },
    ...{ promptTokensWanted: promptTokens, outputTokensWanted: outputTokens },
  };
  if (!answered || firstSeconds === undefined) {
    const detail = "It is too long for the simulated KV cache, or too many requests waited.";
    return { ...wanted, failure: { kind: "http_error", detail } };
  }
  const times = { firstSeconds: rounded(firstSeconds), lastSeconds: rounded(lastSeconds) };
  return { ...wanted, ...times, promptTokens, outputTokens };
}
