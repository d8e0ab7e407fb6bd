/**
 * The engines of one controller: a driver for each name, and who is connected. Bookkeeping alone:
 * nothing here sends or publishes.
 */

import { LazygraphError } from "../base/errors.ts";
import type { EngineDriver } from "../engine/driver.ts";
import { type EngineSnapshot, snapshotOf } from "../engine/snapshot.ts";
import type { Session } from "../wire/session.ts";
import { isWaitedFor, type WaitOptions } from "./waiters.ts";

export interface Connection {
  readonly driver: EngineDriver;
  readonly session: Session;
}

/** A picture of one engine, and who else there is. */
export interface EngineLook {
  /** Undefined where none of that name has joined. */
  readonly found: EngineSnapshot | undefined;
  readonly names: readonly string[];
}

/** Pictures of more leave out why graphs are missing: these sentences take most of the time. */
const EXPLAINED_ENGINES_MAX = 128;

export class EngineRegistry {
  readonly #drivers = new Map<string, EngineDriver>();
  /** Engines by connection; a lost engine has none. */
  readonly #connections = new Map<string, Connection>();

  // ---------------------------------------------------------------- by name

  /** Every engine that joined, lost ones included, in order of joining. */
  snapshots(): readonly EngineSnapshot[] {
    const explains = this.#drivers.size <= EXPLAINED_ENGINES_MAX;
    const drivers = [...this.#drivers.values()];
    return Object.freeze(drivers.map((driver) => snapshotOf(driver.record, explains)));
  }

  lookUp(engine: string): EngineLook {
    const driver = this.#drivers.get(engine);
    const found = driver && snapshotOf(driver.record);
    return { found, names: [...this.#drivers.keys()] };
  }

  /** The first connected engine that is what a caller waits for. */
  find(options: WaitOptions): EngineSnapshot | undefined {
    for (const { record } of this.#drivers.values()) {
      if (isWaitedFor(record, options)) return snapshotOf(record);
    }
    return undefined;
  }

  driver(engine: string): EngineDriver | undefined {
    return this.#drivers.get(engine);
  }

  /**
   * What can't be told to an engine is not taken: the caller would believe it done.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, or …_LOST while it is not connected
   */
  connected(engine: string): EngineDriver {
    const driver = this.#known(engine);
    const { connected, lostReason } = driver.record;
    if (connected) return driver;
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_LOST",
      `Expected engine ${engine} to be connected, but it is not (${lostReason ?? "no reason"}): ` +
        "ask again once it is back.",
    );
  }

  #known(engine: string): EngineDriver {
    const driver = this.#drivers.get(engine);
    if (driver !== undefined) return driver;
    const names = [...this.#drivers.keys()].slice(0, 5).join(", ");
    throw new LazygraphError(
      "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
      `Expected the name of an engine that joined (${names || "none did yet"}), got ${engine}.`,
    );
  }

  /** Takes the place of an older process of that name. */
  add(driver: EngineDriver): void {
    this.#drivers.set(driver.record.hello.engine, driver);
  }

  /** Whether an engine may join; where there are `enginesMax`, a lost one is forgotten for it. */
  makeRoom(engine: string, enginesMax: number): boolean {
    if (this.#drivers.has(engine) || this.#drivers.size < enginesMax) return true;
    for (const [name, driver] of this.#drivers) {
      if (driver.record.connected) continue;
      driver.close();
      this.#drivers.delete(name);
      return true;
    }
    return false;
  }

  // ---------------------------------------------------------------- by connection

  connection(peer: string): Connection | undefined {
    return this.#connections.get(peer);
  }

  /** The connection that an engine has, and its peer. */
  connectionOf(driver: EngineDriver): readonly [string, Connection] | undefined {
    for (const entry of this.#connections) {
      if (entry[1].driver === driver) return entry;
    }
    return undefined;
  }

  connect(peer: string, connection: Connection): void {
    this.#connections.set(peer, connection);
  }

  disconnect(peer: string): void {
    this.#connections.delete(peer);
  }

  /** Free memory of this host's GPUs has crossed what is spoken for. */
  reviewMemory(): void {
    for (const { driver } of this.#connections.values()) driver.reviewMemory();
  }

  /** Ends all drivers and sessions; who joined is still known. */
  close(error: LazygraphError): void {
    for (const driver of this.#drivers.values()) driver.close();
    for (const { session } of this.#connections.values()) session.close(error);
    this.#connections.clear();
  }
}
