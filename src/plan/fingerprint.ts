/**
 * What a learned plan is valid for. Pure: two engines of one fingerprint run the same model, by the
 * same code, on the same kind of GPU, with the same graphs to choose from.
 */

import { createHash } from "node:crypto";
import { counted } from "../base/counted.ts";
import type { Graph, StepCase } from "../base/graph.ts";
import type { Hello, Inventory } from "../wire/protocol.ts";

export interface Fingerprint {
  readonly vllmVersion: string;
  readonly pluginVersion: string;
  readonly model: string;
  readonly gpuName: string;
  readonly tensorParallel: number;
  readonly pipelineParallel: number;
  readonly cudagraphMode: string;
  /** Planned sizes in tokens, rising, by kind and by what else a step must look like. */
  readonly captureSizes: Readonly<Record<string, readonly number[]>>;
}

/** Hexadecimal digits of a key: enough that two fingerprints never meet. */
const KEY_CHARS = 24;

export function fingerprintOf(
  hello: Pick<
    Hello,
    "vllmVersion" | "pluginVersion" | "model" | "tensorParallel" | "pipelineParallel"
  >,
  inventory: Pick<Inventory, "cudagraphMode" | "graphs"> & {
    readonly ranks: readonly { readonly gpuName: string }[];
  },
): Fingerprint {
  const names = new Set(inventory.ranks.map((rank) => rank.gpuName));
  return {
    vllmVersion: named(hello.vllmVersion),
    pluginVersion: named(hello.pluginVersion),
    model: named(hello.model),
    gpuName: named([...names].sort().join(", ")),
    tensorParallel: hello.tensorParallel,
    pipelineParallel: hello.pipelineParallel,
    cudagraphMode: named(inventory.cudagraphMode),
    captureSizes: captureSizesOf(inventory.graphs),
  };
}

/** What an engine may tell, as a file takes it: not empty, and without control characters. */
function named(text: string): string {
  return text.replace(/\p{Cc}/gu, " ") || "unknown";
}

/** The name of a plan's file, without its extension. */
export function fingerprintKey(fingerprint: Fingerprint): string {
  const sizes = Object.entries(fingerprint.captureSizes).sort(([a], [b]) => (a < b ? -1 : 1));
  // By name and in one order, so that a file written by hand has the key of its meaning.
  const canonical = JSON.stringify([
    fingerprint.vllmVersion,
    fingerprint.pluginVersion,
    fingerprint.model,
    fingerprint.gpuName,
    fingerprint.tensorParallel,
    fingerprint.pipelineParallel,
    fingerprint.cudagraphMode,
    sizes,
  ]);
  return createHash("sha256").update(canonical).digest("hex").slice(0, KEY_CHARS);
}

/** Where two fingerprints differ, as the end of a sentence; undefined where they don't. */
export function fingerprintDifference(a: Fingerprint, b: Fingerprint): string | undefined {
  const names = Object.keys(a) as (keyof Fingerprint)[];
  const name = names.find((key) => canonicalField(a[key]) !== canonicalField(b[key]));
  if (name === undefined) return undefined;
  if (name === "captureSizes") return "the capture sizes differ";
  return `${name} is ${JSON.stringify(a[name])} in one and ${JSON.stringify(b[name])} in the other`;
}

function canonicalField(value: Fingerprint[keyof Fingerprint]): string {
  if (typeof value !== "object") return JSON.stringify(value);
  return JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function captureSizesOf(graphs: readonly Graph[]): Record<string, number[]> {
  const sizes: Record<string, number[]> = {};
  for (const graph of graphs) {
    const { kind, tokens, uniform, requests } = graph;
    const decode = uniform === undefined ? "" : `, ${uniform} a request`;
    // A decode graph's requests follow from its tokens; a limit on mixed steps doesn't.
    const limit =
      uniform === undefined && requests !== undefined ? `, ${counted(requests, "request")}` : "";
    // Whose graphs come with a drafter's takes another time and other bytes for each.
    const pair = (graph.draftLayers ?? 0) > 0 ? ", with a drafter's" : "";
    const group = `${kind}${decode}${limit}${caseText(graph)}${pair}`;
    sizes[group] = [...(sizes[group] ?? []), tokens];
  }
  for (const list of Object.values(sizes)) list.sort((a, b) => a - b);
  return sizes;
}

/** Nothing for the plain case, so that fingerprints of engines without others stay what they are. */
function caseText({ loras = 0, queryLength, microbatches = 1 }: StepCase): string {
  const adapters = loras === 0 ? "" : `, ${loras} adapters`;
  const length = queryLength === undefined ? "" : `, at most ${queryLength} a request`;
  const split = microbatches === 1 ? "" : `, ${microbatches} microbatches`;
  return `${adapters}${length}${split}`;
}
