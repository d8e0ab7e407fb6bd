/**
 * Who may join a controller: a `hello` makes an engine's driver, finds the one it had, or is
 * refused with a reason. A peer without a session is asked for its `hello`.
 */

import { type Clock, coarseClock } from "../base/clock.ts";
import { dropOldest } from "../base/drop-oldest.ts";
import { type ErrorCode, LazygraphError } from "../base/errors.ts";
import { EngineDriver } from "../engine/driver.ts";
import { BoundedProblems } from "../engine/problems.ts";
import type { EngineRecord } from "../engine/record.ts";
import type { SharedMemory } from "../engine/shared-memory.ts";
import type { EnginePlans } from "../plan/engine-plan.ts";
import type { Hello, Refuse, ToEngine } from "../wire/protocol.ts";
import { Session } from "../wire/session.ts";
import { refusalOf, spokenVersion } from "../wire/version.ts";
import { NameKeys } from "./name-keys.ts";
import type { ResolvedOptions } from "./options.ts";
import { modeOf, ordersFor, rulesOf } from "./orders.ts";
import type { Connection, EngineRegistry } from "./registry.ts";

/** Sessions remembered as replaced by a younger one of the same engine name. */
const REPLACED_MAX = 256;
/** Strangers remembered as asked for their `hello`. */
const STRANGERS_MAX = 1024;
/** Seconds until who found no place asks again. */
const LATER_SECONDS = 5;
/** Times in a heartbeat at which the sessions whose turn it is beat together. */
const BEATS_APART = 20;
/** Sessions remembered as put off, so that it is told once. */
const PUT_OFF_MAX = 256;
/**
 * How long after its first engine a controller goes on to take the place of those that its engines
 * had before it. They come within seconds of its start; who comes later with a higher incarnation
 * has had a controller that started after this one.
 */
const TAKEOVER_SECONDS = 60;
/** A year: what a clock may be behind the one of the controller before. */
const CLOCK_BACK_MS_MAX = 31_536_000_000;

export interface AdmissionOptions {
  readonly options: ResolvedOptions;
  readonly clock: Clock;
  readonly registry: EngineRegistry;
  readonly plans: EnginePlans;
  readonly memory: SharedMemory;
  /** When a capture of an idle engine may begin; undefined: at once. */
  readonly pace: () => Promise<void> | undefined;
  /** False when it can't be delivered. */
  readonly send: (peer: string, message: ToEngine) => boolean;
  /** Seconds since all that had come was read. */
  readonly unreadSeconds: () => number;
  /** This peer has a session from now on, until it is disconnected. */
  readonly onConnect: (peer: string) => void;
  readonly onDisconnect: (peer: string) => void;
  /** An engine is about to join or to come back. */
  readonly onJoin: () => void;
  /** Called after every change that a snapshot shows, with whose it is. */
  readonly onChange: (record: EngineRecord) => void;
}

export class EngineAdmission {
  readonly #options: AdmissionOptions;
  #incarnation = nextIncarnation();
  #firstAtSeconds: number | undefined;
  readonly #replaced = new Set<string>();
  /** When a peer without a session was last asked to say hello; infinity: refused, never again. */
  readonly #strangers = new Map<string, number>();
  readonly #putOff = new Set<string>();
  /** Of engines that are kept out: any number, or one that asks with every frame. */
  readonly #problems: BoundedProblems;
  readonly #names: NameKeys;
  /** For heartbeats and deadlines, which nobody waits for to the millisecond. */
  readonly #sessionClock: Clock;
  #commands = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#problems = new BoundedProblems(options.clock);
    const { heartbeatMs, captureTimeoutMs } = options.options;
    // By the shorter one: where heartbeats are rare, a tick of theirs may be all the time there is.
    const shortestMs = Math.min(heartbeatMs, captureTimeoutMs);
    this.#sessionClock = coarseClock(options.clock, shortestMs / 1000 / BEATS_APART);
    this.#names = new NameKeys(options.options.curve);
  }

  /** Later starts have higher ones; engines never go back to a lower one. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** A peer without a session: this controller was restarted, or had given the engine up. */
  askWho(peer: string): void {
    const { options, clock, send } = this.#options;
    const now = clock.now();
    const askedAt = this.#strangers.get(peer) ?? Number.NEGATIVE_INFINITY;
    if (now - askedAt < options.heartbeatMs / 1000) return;
    this.#remember(peer, now);
    send(peer, { type: "resync", hello: true });
  }

  /** @param connection the one that this peer has already */
  hello(peer: string, connection: Connection | undefined, hello: Hello): void {
    const refusal = refusalOf(hello);
    if (refusal !== undefined) {
      // It may have been welcome before it knew that its graphs need another version.
      if (connection !== undefined) this.#endConnectionOf(connection.driver, "it is refused now");
      this.#refuse(peer, refusal, hello.engine);
      return;
    }
    const key = this.#names.proven(hello);
    const taken = this.#names.refusal(hello, key, this.#options.registry.driver(hello.engine));
    if (taken !== undefined) {
      this.#nameTaken(peer, connection, hello, taken);
      return;
    }
    if (this.#isReplaced(hello)) {
      this.#putOffReplaced(peer, hello);
      return;
    }
    if (!this.#outranks(hello)) {
      this.#superseded(connection, hello);
      return;
    }
    const { engine, session: id } = hello;
    if (connection !== undefined) {
      const { hello: known, mode, orders } = connection.driver.record;
      const sameVersion = spokenVersion(hello) === connection.session.version;
      if (known.session === id && known.engine === engine && sameVersion) {
        // The first answer has not reached it yet, or its connection broke and came back.
        connection.session.welcome(mode, orders);
        return;
      }
      // A connection belongs to one engine: the one it named before has no other.
      const other = known.session !== id || known.engine !== engine;
      const why = other ? `its connection is ${engine}'s now` : "it speaks another version now";
      this.#endConnectionOf(connection.driver, why);
    }
    const { registry, options, onJoin } = this.#options;
    if (!registry.makeRoom(engine, options.enginesMax)) {
      this.#noPlace(peer, hello);
      return;
    }
    this.#strangers.delete(peer);
    this.#putOff.delete(id);
    this.#firstAtSeconds ??= this.#options.clock.now();
    onJoin();
    this.#admit(peer, hello, key);
  }

  /**
   * Whether this controller comes after all that the engine has had. A clock that went back must
   * not keep a new one from its engines: until it has some of its own, it goes by what they know.
   */
  #outranks({ incarnation: seen = 0 }: Hello): boolean {
    if (seen <= this.#incarnation) return true;
    const first = this.#firstAtSeconds;
    const isNew = first === undefined || this.#options.clock.now() - first < TAKEOVER_SECONDS;
    // Nobody's word may lift it so far that no later start can come after it.
    if (!isNew || seen - this.#incarnation > CLOCK_BACK_MS_MAX) return false;
    this.#incarnation = laterIncarnation(seen);
    return true;
  }

  /** Another controller has started since: the engine is that one's. It goes on to ask there. */
  #superseded(connection: Connection | undefined, { engine, incarnation = 0 }: Hello): void {
    if (connection !== undefined) {
      this.#endConnectionOf(connection.driver, "a younger controller has it");
    }
    this.#problems.tell(
      engine,
      "ERR_LAZYGRAPH_INCARNATION",
      `Expected engine ${engine} to know no younger controller than this one (${this.#incarnation}), ` +
        `got one that was welcomed by ${incarnation}: stop this one.`,
    );
  }

  /** Another key's: the one that has it doesn't notice, and keys may be mended meanwhile. */
  #nameTaken(peer: string, connection: Connection | undefined, hello: Hello, why: string): void {
    if (connection !== undefined) this.#endConnectionOf(connection.driver, "it took another name");
    this.#options.registry.driver(hello.engine)?.countProblem("namesakes", 1);
    this.#later(peer, hello, "ERR_LAZYGRAPH_ENGINE_NAME", why);
  }

  #noPlace(peer: string, hello: Hello): void {
    const { enginesMax } = this.#options.options;
    const message =
      `Expected at most ${enginesMax} engines at once, got ${hello.engine} as one more: it is let in ` +
      "when another one ends; raise enginesMax (--engines-max), or start another controller.";
    this.#later(peer, hello, "ERR_LAZYGRAPH_ENGINES_MAX", message);
  }

  /** Whoever comes again when the reason is gone is let in. */
  #later(peer: string, { engine, session }: Hello, code: ErrorCode, message: string): void {
    // Asked again only by its next hello.
    this.#remember(peer, Number.POSITIVE_INFINITY);
    this.#options.send(peer, { type: "later", code, message, retrySeconds: LATER_SECONDS });
    if (this.#putOff.has(session)) return;
    this.#putOff.add(session);
    dropOldest(this.#putOff, PUT_OFF_MAX);
    this.#problems.tell(engine, code, message);
  }

  #admit(peer: string, hello: Hello, key: string | undefined): void {
    const { options, clock, registry, plans, memory, pace, onChange } = this.#options;
    const { engine } = hello;
    const old = registry.driver(engine);
    const session = this.#session(peer, hello);
    if (old !== undefined && old.record.hello.session === hello.session) {
      this.#endConnectionOf(old, "it came back over another connection");
      this.#connect(peer, { driver: old, session });
      this.#names.own(old, key);
      old.attach(hello, session);
      return;
    }
    const replaced = old === undefined ? 0 : this.#replace(old);
    const orders = ordersFor(options, old?.record.orders, hello.orders);
    const rules = rulesOf(orders);
    const driver = new EngineDriver(hello, modeOf(options, orders), session, {
      clock,
      policy: options.policyWithin(rules),
      settleWithinSeconds: orders.settleWithinSeconds,
      rules,
      orders,
      plans,
      memory,
      pace,
      onChange,
    });
    if (replaced > 0) driver.countProblem("replaced", replaced);
    registry.add(driver);
    this.#names.own(driver, key);
    this.#connect(peer, { driver, session });
    driver.join();
  }

  #connect(peer: string, connection: Connection): void {
    this.#options.registry.connect(peer, connection);
    this.#options.onConnect(peer);
  }

  #session(peer: string, hello: Hello): Session {
    const { options, registry, send, unreadSeconds, onDisconnect } = this.#options;
    const { heartbeatMs, captureTimeoutMs, memory = {} } = options;
    const { reserve, reserveBytes, marginBytes } = memory;
    const session: Session = new Session(hello, {
      clock: this.#sessionClock,
      send: (message) => send(peer, message),
      unreadSeconds,
      heartbeatMs,
      captureTimeoutMs,
      incarnation: this.#incarnation,
      memory: {
        ...(reserve === undefined ? {} : { reserve }),
        ...(reserveBytes === undefined ? {} : { reserveBytes }),
        ...(marginBytes === undefined ? {} : { marginBytes }),
      },
      nextCommand: () => {
        this.#commands += 1;
        return this.#commands;
      },
      onLost: (error) => {
        const connection = registry.connection(peer);
        if (connection?.session !== session) return;
        registry.disconnect(peer);
        onDisconnect(peer);
        connection.driver.detach(error);
      },
    });
    return session;
  }

  /** Whether a younger process has its name, and is there. */
  #isReplaced({ engine, session }: Hello): boolean {
    if (!this.#replaced.has(session)) return false;
    if (this.#options.registry.driver(engine)?.record.connected === true) return true;
    this.#replaced.delete(session);
    return false;
  }

  /**
   * Not for good: what took its name may have been the last word of a process that was dead by then,
   * read late because this side or the network was slow.
   */
  #putOffReplaced(peer: string, hello: Hello): void {
    this.#later(
      peer,
      hello,
      "ERR_LAZYGRAPH_ENGINE_REPLACED",
      `Expected one engine of the name ${hello.engine}, but a younger one took it: give each engine a ` +
        "name of its own (LAZYGRAPH_ENGINE); this one is let in when the other is gone.",
    );
  }

  #refuse(peer: string, refusal: Refuse, engine: string): void {
    this.#remember(peer, Number.POSITIVE_INFINITY);
    this.#options.send(peer, refusal);
    this.#problems.tell(engine, refusal.code, refusal.message);
  }

  /**
   * Another process took the name: the older one is told so, else the two would take turns.
   * @returns how often this name was taken from a process that was still there
   */
  #replace(driver: EngineDriver): number {
    const { hello, problems } = driver.record;
    this.#replaced.add(hello.session);
    dropOldest(this.#replaced, REPLACED_MAX);
    const peer = this.#endConnectionOf(driver, "a younger engine took its name");
    if (peer !== undefined) this.#putOffReplaced(peer, hello);
    driver.close();
    return problems.replaced + (peer === undefined ? 0 : 1);
  }

  /** @returns the peer that had it; undefined: it was lost already */
  #endConnectionOf(driver: EngineDriver, why: string): string | undefined {
    const found = this.#options.registry.connectionOf(driver);
    if (found === undefined) return undefined;
    const [peer, { session }] = found;
    session.lose(
      new LazygraphError(
        "ERR_LAZYGRAPH_ENGINE_LOST",
        `Expected engine ${driver.record.hello.engine} to stay, but ${why}.`,
      ),
    );
    return peer;
  }

  #remember(peer: string, atSeconds: number): void {
    this.#strangers.delete(peer);
    this.#strangers.set(peer, atSeconds);
    dropOldest(this.#strangers, STRANGERS_MAX);
  }
}

let incarnation = 0;

/** Unix milliseconds of this start, later than every other start in this process. */
function nextIncarnation(): number {
  incarnation = Math.max(Date.now(), incarnation + 1);
  return incarnation;
}

function laterIncarnation(seen: number): number {
  incarnation = Math.max(seen, incarnation) + 1;
  return incarnation;
}
