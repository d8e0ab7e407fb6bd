/**
 * Who may join a controller: a `hello` makes an engine's driver, finds the one it had, or is
 * refused with a reason. A peer without a session is asked for its `hello`.
 */

import { systemClock } from "../base/clock.ts";
import { LazygraphError } from "../base/errors.ts";
import { EngineDriver } from "../engine/driver.ts";
import { publishProblem } from "../engine/events.ts";
import type { SharedMemory } from "../engine/shared-memory.ts";
import type { EnginePlans } from "../plan/engine-plan.ts";
import type { Hello, Refuse, ToEngine } from "../wire/protocol.ts";
import { Session } from "../wire/session.ts";
import { refusalOf, spokenVersion } from "../wire/version.ts";
import type { ResolvedOptions } from "./options.ts";
import type { Connection, EngineRegistry } from "./registry.ts";

/** Sessions remembered as replaced by a younger one of the same engine name. */
const REPLACED_MAX = 256;
/** Strangers remembered as asked for their `hello`. */
const STRANGERS_MAX = 1024;

export interface AdmissionOptions {
  readonly options: ResolvedOptions;
  readonly registry: EngineRegistry;
  readonly plans: EnginePlans;
  readonly memory: SharedMemory;
  /** False when it can't be delivered. */
  readonly send: (peer: string, message: ToEngine) => boolean;
  /** An engine is about to join or to come back. */
  readonly onJoin: () => void;
  /** Called after every change that a snapshot shows. */
  readonly onChange: () => void;
}

export class EngineAdmission {
  readonly #options: AdmissionOptions;
  /** Later starts have higher ones; engines never go back to a lower one. */
  readonly incarnation: number = nextIncarnation();
  readonly #replaced = new Set<string>();
  /** When a peer without a session was last asked to say hello; infinity: refused, never again. */
  readonly #strangers = new Map<string, number>();
  #commands = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** A peer without a session: this controller was restarted, or had given the engine up. */
  askWho(peer: string): void {
    const { options, send } = this.#options;
    const now = systemClock.now();
    const askedAt = this.#strangers.get(peer) ?? Number.NEGATIVE_INFINITY;
    if (now - askedAt < options.heartbeatMs / 1000) return;
    this.#remember(peer, now);
    send(peer, { type: "resync", hello: true });
  }

  /** @param connection the one that this peer has already */
  hello(peer: string, connection: Connection | undefined, hello: Hello): void {
    const refusal = this.#refusal(hello);
    if (refusal !== undefined) {
      // It may have been welcome before it knew that its graphs need another version.
      if (connection !== undefined) this.#endConnectionOf(connection.driver, "it is refused now");
      this.#refuse(peer, refusal, hello.engine);
      return;
    }
    const { engine, session: id } = hello;
    if (connection !== undefined) {
      const { hello: known, mode } = connection.driver.record;
      const sameVersion = spokenVersion(hello) === connection.session.version;
      if (known.session === id && known.engine === engine && sameVersion) {
        // The first answer has not reached it yet, or its connection broke and came back.
        connection.session.welcome(mode);
        return;
      }
      // A connection belongs to one engine: the one it named before has no other.
      const other = known.session !== id || known.engine !== engine;
      const why = other ? `its connection is ${engine}'s now` : "it speaks another version now";
      this.#endConnectionOf(connection.driver, why);
    }
    this.#strangers.delete(peer);
    this.#options.onJoin();
    this.#admit(peer, hello);
  }

  #admit(peer: string, hello: Hello): void {
    const { options, registry, plans, memory, onChange } = this.#options;
    const { engine } = hello;
    const old = registry.driver(engine);
    const mode = registry.mode(engine) ?? options.mode;
    const session = this.#session(peer, hello);
    if (old !== undefined && old.record.hello.session === hello.session) {
      this.#endConnectionOf(old, "it came back over another connection");
      registry.connect(peer, { driver: old, session });
      old.attach(hello, session);
      return;
    }
    const replaced = old === undefined ? 0 : this.#replace(old);
    const driver = new EngineDriver(hello, mode, session, {
      clock: systemClock,
      policy: options.policy,
      settleWithinSeconds: options.settleWithinSeconds,
      rules: options.rules,
      plans,
      memory,
      onChange,
    });
    if (replaced > 0) driver.countProblem("replaced", replaced);
    registry.add(driver);
    registry.connect(peer, { driver, session });
    driver.join();
  }

  #session(peer: string, hello: Hello): Session {
    const { options, registry, send } = this.#options;
    const { heartbeatMs, captureTimeoutMs, memory = {} } = options;
    const { reserve, reserveBytes, marginBytes } = memory;
    const session: Session = new Session(hello, {
      clock: systemClock,
      send: (message) => send(peer, message),
      heartbeatMs,
      captureTimeoutMs,
      incarnation: this.incarnation,
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
        connection.driver.detach(error);
      },
    });
    return session;
  }

  #refusal(hello: Hello): Refuse | undefined {
    const version = refusalOf(hello);
    if (version !== undefined) return version;
    const { engine, session } = hello;
    if (this.#replaced.has(session)) return replacedRefusal(engine);
    const { registry, options } = this.#options;
    const { enginesMax } = options;
    return registry.makeRoom(engine, enginesMax) ? undefined : fullRefusal(engine, enginesMax);
  }

  #refuse(peer: string, refusal: Refuse, engine: string): void {
    this.#remember(peer, Number.POSITIVE_INFINITY);
    this.#options.send(peer, refusal);
    publishProblem(engine, refusal.code, refusal.message);
  }

  /**
   * Another process took the name: the older one is told so, else the two would take turns.
   * @returns how often this name was taken from a process that was still there
   */
  #replace(driver: EngineDriver): number {
    const { hello, problems } = driver.record;
    const { engine, session } = hello;
    this.#replaced.add(session);
    dropOldest(this.#replaced, REPLACED_MAX);
    const peer = this.#endConnectionOf(driver, "a younger engine took its name");
    if (peer !== undefined) this.#refuse(peer, replacedRefusal(engine), engine);
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

/** What was added first goes first. */
function dropOldest(
  names: Pick<Map<string, unknown> | Set<string>, "size" | "keys" | "delete">,
  max: number,
): void {
  if (names.size <= max) return;
  for (const oldest of names.keys()) {
    names.delete(oldest);
    break;
  }
}

let incarnation = 0;

/** Unix milliseconds of this start, later than every other start in this process. */
function nextIncarnation(): number {
  incarnation = Math.max(Date.now(), incarnation + 1);
  return incarnation;
}

function replacedRefusal(engine: string): Refuse {
  return {
    type: "refuse",
    code: "ERR_LAZYGRAPH_ENGINE_REPLACED",
    message:
      `Expected one engine of the name ${engine}, but a younger one took it: ` +
      "give each engine a name of its own (LAZYGRAPH_ENGINE).",
  };
}

function fullRefusal(engine: string, enginesMax: number): Refuse {
  return {
    type: "refuse",
    code: "ERR_LAZYGRAPH_ENGINES_MAX",
    message:
      `Expected at most ${enginesMax} engines at once, got ${engine} as one more: ` +
      "raise enginesMax, or start another controller.",
  };
}
