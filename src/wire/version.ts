/**
 * Which protocol version two sides speak: the newest that both know, for as long as the connection
 * lasts. Pure.
 *
 * A peer ignores fields that it doesn't know, so most additions need no new version. One does where
 * leaving the field out would be wrong: a controller of version 1 can't tell a graph for two
 * adapters from the one without, and an engine of version 1 doesn't stop at a budget.
 */

import type { Graph } from "../base/graph.ts";
import { type Hello, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, type Refuse } from "./protocol.ts";

/** The version that is spoken with the engine that sent `hello`; undefined: there is none. */
export function spokenVersion({
  versionMin,
  versionMax,
}: Pick<Hello, "versionMin" | "versionMax">): number | undefined {
  const newest = Math.min(PROTOCOL_VERSION, versionMax);
  return newest >= Math.max(PROTOCOL_VERSION_MIN, versionMin) ? newest : undefined;
}

/** The oldest version in which these graphs can be told apart. */
export function versionFor(graphs: readonly Graph[]): number {
  const needsCase = graphs.some(
    ({ loras = 0, queryLength, microbatches = 1 }) =>
      loras !== 0 || queryLength !== undefined || microbatches !== 1,
  );
  return needsCase ? 2 : PROTOCOL_VERSION_MIN;
}

/**
 * Whether this controller can talk to the engine that sent `hello`.
 *
 * @returns undefined if it can, else the refusal that says which side to upgrade.
 */
export function refusalOf(hello: Hello): Refuse | undefined {
  if (spokenVersion(hello) !== undefined) return undefined;
  const { versionMin, versionMax, engine } = hello;
  const remedy =
    versionMin > PROTOCOL_VERSION
      ? "upgrade lazygraph, the controller"
      : "upgrade lazygraph-vllm, the plugin in the engine";
  return {
    type: "refuse",
    code: "ERR_LAZYGRAPH_PROTOCOL_VERSION",
    message:
      `Expected engine ${engine} to speak protocol ` +
      `${rangeText(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION)}, got ` +
      `${rangeText(versionMin, versionMax)}: ${remedy}.`,
  };
}

function rangeText(min: number, max: number): string {
  return min === max ? `version ${min}` : `versions ${min} to ${max}`;
}
