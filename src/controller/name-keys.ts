/**
 * Which name of an engine belongs to which CURVE key.
 *
 * A name is its first owner's for as long as the engine is known here, and the list of allowed keys
 * may give names to keys beforehand, which then are nobody else's. Where it gives any, a key is asked
 * for from everybody: who needn't prove one could take what its own key may not. Without keys on this
 * side names are as free as the endpoint.
 */

import type { EngineDriver } from "../engine/driver.ts";
import {
  type AllowedClient,
  type AllowedEngines,
  type CurveOptions,
  keyOf,
  listOf,
} from "../wire/curve.ts";
import { provenKey } from "../wire/key-proof.ts";
import type { Hello } from "../wire/protocol.ts";

/** Of a key, and of the names given to one, in a sentence. */
const KEY_CHARS_SHOWN = 8;
const NAMES_CHARS_SHOWN = 300;

export class NameKeys {
  readonly #curve: CurveOptions | undefined;
  readonly #owners = new WeakMap<EngineDriver, string>();

  constructor(curve: CurveOptions | undefined) {
    this.#curve = curve;
  }

  /** The key whose owner sent this; undefined: it proves none, or nobody has keys here. */
  proven(hello: Hello): string | undefined {
    return this.#curve === undefined ? undefined : provenKey(this.#curve, hello);
  }

  /**
   * @param key of `proven`
   * @returns why it may not have its name, in a sentence for both sides; undefined: it may
   */
  refusal(
    { engine }: Hello,
    key: string | undefined,
    holder: EngineDriver | undefined,
  ): string | undefined {
    if (this.#curve === undefined) return undefined;
    const allowed = this.#allowed();
    const isAllowed = (one: string | undefined): boolean =>
      allowed?.some((client) => keyOf(client) === one) ?? one !== undefined;
    const given = (allowed ?? []).filter(hasNames);
    const owners = given.filter(({ engines }) => engines.some((name) => covers(name, engine)));
    if (given.length > 0 && !isAllowed(key)) return unproven(engine, key);
    if (owners.length > 0 && !owners.some((owner) => owner.key === key)) {
      return givenToOthers(engine, owners, key);
    }
    const own = given.find((client) => client.key === key);
    if (own !== undefined && owners.length === 0) return notGiven(engine, own);
    const owner = holder === undefined ? undefined : this.#owners.get(holder);
    // Of a key that may not connect any more, the names are free again.
    if (owner === undefined || owner === key || !isAllowed(owner)) return undefined;
    return ownedBy(engine, owner, key);
  }

  /** This engine has the name now. */
  own(driver: EngineDriver, key: string | undefined): void {
    if (key !== undefined) this.#owners.set(driver, key);
  }

  /** Undefined: every key is. A list that can't be had has nobody. */
  #allowed(): readonly AllowedClient[] | undefined {
    const { allowedClients } = this.#curve ?? {};
    if (allowedClients === undefined) return undefined;
    try {
      return [...listOf(allowedClients)];
    } catch {
      return [];
    }
  }
}

function hasNames(client: AllowedClient): client is Required<AllowedEngines> {
  return typeof client !== "string" && (client.engines?.length ?? 0) > 0;
}

function covers(name: string, engine: string): boolean {
  return name.endsWith("*") ? engine.startsWith(name.slice(0, -1)) : name === engine;
}

function unproven(engine: string, key: string | undefined): string {
  return (
    `Expected engine ${engine} to prove a key that is allowed, because names are given to keys here, ` +
    `got ${proof(key)}: update its lazygraph-vllm, and have the package cryptography in its Python.`
  );
}

function givenToOthers(
  engine: string,
  owners: readonly AllowedEngines[],
  key: string | undefined,
): string {
  const keys = owners.map((owner) => shown(owner.key)).join(", ");
  return (
    `Expected engine ${engine} to have the key to which that name is given (${brief(keys)}), got ` +
    `${proof(key)}: give it another name (LAZYGRAPH_ENGINE), or this one to its key ` +
    "(`lazygraph keys allow FOLDER KEY --engine NAME`)."
  );
}

function notGiven(engine: string, { key, engines }: Required<AllowedEngines>): string {
  return (
    `Expected an engine with the key ${shown(key)} to have a name that is given to it ` +
    `(${brief(engines.join(", "))}), got ${engine}: set LAZYGRAPH_ENGINE, or give it this name, too ` +
    "(`lazygraph keys allow FOLDER KEY --engine NAME`)."
  );
}

function ownedBy(engine: string, owner: string, key: string | undefined): string {
  return (
    `Expected engine ${engine} to have the key ${shown(owner)}, which had that name first, got ` +
    `${proof(key)}: give it another name (LAZYGRAPH_ENGINE), or remove that key if it is no more ` +
    "(`lazygraph keys allow FOLDER KEY --remove`)."
  );
}

function proof(key: string | undefined): string {
  return key === undefined ? "no proof of any" : `another one (${shown(key)})`;
}

function shown(key: string): string {
  return `${key.slice(0, KEY_CHARS_SHOWN)}…`;
}

/** Well-formed, as peers take it. */
function brief(text: string): string {
  const begin = Buffer.from(text.slice(0, NAMES_CHARS_SHOWN)).toString();
  return text.length > NAMES_CHARS_SHOWN ? `${begin}…` : text;
}
