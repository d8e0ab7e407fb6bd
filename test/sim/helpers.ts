import { parseProfile } from "../../src/profile/load.ts";
import type { Profile } from "../../src/profile/profile.ts";

/** Whole numbers of seconds, so that every time in a test can be worked out by hand. */
export function tinyDocument(): Record<string, unknown> {
  return {
    schema: 1,
    name: "tiny",
    title: "a made-up engine",
    provenance: { measuredOn: "never", setup: "made up", fields: {} },
    engine: {
      model: "tiny",
      vllmVersion: "0.26.0",
      gpuName: "none",
      cudagraphMode: "FULL_AND_PIECEWISE",
      layers: 2,
      tensorParallel: 1,
      pipelineParallel: 1,
    },
    startupSeconds: 10,
    limits: { maxRequests: 4, maxBatchedTokens: 8, kvCacheTokens: 64, kvBlockTokens: 4 },
    memory: { totalBytes: 1000, freeBytes: 100, reservedBytes: 900, activationPeakBytes: 0 },
    steps: {
      full: [
        [1, 1],
        [4, 4],
      ],
      piecewise: [
        [1, 2],
        [4, 5],
      ],
      ungraphed: [
        [1, 10],
        [4, 10],
      ],
      secondsPerRequest: 0,
      secondsPerContextToken: 0,
      secondsPerTokenBeyond: 1,
      secondsPerPromptPair: 0,
    },
    captures: {
      withoutWarmUp: 0.5,
      columns: ["kind", "tokens", "warmMs", "captureMs", "laterMs", "bytes"],
      rows: [
        ["PIECEWISE", 4, 1000, 1000, 3000, 40],
        ["PIECEWISE", 1, 1000, 1000, 3000, 10],
        ["FULL", 4, 1000, 1000, 2000, 20],
        ["FULL", 1, 1000, 1000, 2000, 10],
      ],
    },
  };
}

export type Change = (document: ReturnType<typeof tinyDocument>) => void;

export function tinyProfile(change: Change = () => {}): Profile {
  const document = tinyDocument();
  change(document);
  return parseProfile(JSON.stringify(document), "tiny.json");
}

/** The same engine on a GPU that has room for its graphs beside what serving is allowed. */
export function roomyProfile(change: Change = () => {}): Profile {
  return tinyProfile((document) => {
    set(document, "memory.totalBytes", 1e11);
    set(document, "memory.freeBytes", 1e10);
    change(document);
  });
}

/** Changes one field of an object inside a document. */
export function set(document: Record<string, unknown>, path: string, value: unknown): void {
  const names = path.split(".");
  const last = names.pop() ?? "";
  let target = document;
  for (const name of names) target = target[name] as Record<string, unknown>;
  if (value === undefined) delete target[last];
  else target[last] = value;
}
