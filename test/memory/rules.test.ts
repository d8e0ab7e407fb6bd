/** Rules that the plugin has as well, in Python: test/golden/rules.json.gz holds both to the same. */

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Graph, GraphKind } from "../../src/base/graph.ts";
import { CONSTANTS, graphBytes, LATENT_CONSTANTS } from "../../src/memory/constants.ts";
import { MemoryForecast } from "../../src/memory/forecast.ts";
import { allowanceBytes } from "../../src/memory/headroom.ts";
import { FIRST_TIER_TOKENS, tiersOf } from "../../src/memory/tiers.ts";
import {
  decodeLength,
  dispatch,
  dispatchTable,
  PAD_LIMIT,
  paddedTokensMax,
} from "../../src/schedule/dispatch.ts";

interface Golden {
  readonly graphBytes: readonly {
    readonly name: string;
    readonly kind: GraphKind;
    readonly layers: number;
    readonly latent?: boolean;
    readonly loras: number;
    readonly draftLayers?: number;
    readonly bytes: number;
  }[];
  readonly allowance: readonly {
    readonly name: string;
    readonly activationPeakBytes: number;
    readonly bytes: number;
  }[];
  readonly padLimit: readonly {
    readonly name: string;
    readonly tokens: number;
    readonly upTo: number;
  }[];
  readonly firstTierTokens: number;
  readonly plan: readonly Graph[];
  readonly tables: readonly Table[];
  /** An engine that drafts three tokens a request. */
  readonly drafting: {
    readonly decodeLength: number;
    readonly plan: readonly Graph[];
    readonly tables: readonly Table[];
  };
}

interface Table {
  readonly name: string;
  readonly captured: readonly string[];
  readonly steps: readonly {
    readonly tokens: number;
    readonly uniform: number;
    readonly served: string | null;
  }[];
}

const golden = JSON.parse(
  gunzipSync(readFileSync(new URL("../golden/rules.json.gz", import.meta.url))).toString(),
) as Golden;

describe("bytes of a graph before any was captured", () => {
  test.for(golden.graphBytes)(
    "$name",
    ({ kind, layers, latent, loras, draftLayers = 0, bytes }) => {
      const constants = latent === true ? LATENT_CONSTANTS : CONSTANTS;
      expect(graphBytes({ kind, loras, draftLayers }, layers, constants)).toBe(bytes);
      // And that is what a forecast starts from, of a graph in a pool that is there.
      const top = { id: `${kind}:8`, kind, tokens: 8, loras, draftLayers };
      const next = { id: `${kind}:4`, kind, tokens: 4, loras, draftLayers };
      const shape = { layers, latent, ranks: 1, activationPeakBytes: 0 };
      const forecast = new MemoryForecast([top, next], shape);
      expect(forecast.graph(next, 8).bytes).toBe(bytes);
    },
  );
});

describe("what serving may take beyond its activation peak", () => {
  test.for(golden.allowance)("$name", ({ activationPeakBytes, bytes }) => {
    expect(allowanceBytes(activationPeakBytes)).toBe(bytes);
  });
});

describe("how far a step is padded where no costs are known", () => {
  test.for(golden.padLimit)("$name", ({ tokens, upTo }) => {
    expect(paddedTokensMax(tokens, PAD_LIMIT)).toBe(upTo);
  });
});

test("the first tier has the graphs that the plugin keeps memory for at the least", () => {
  expect(FIRST_TIER_TOKENS).toBe(golden.firstTierTokens);
  const tiers = tiersOf(golden.plan);
  const first = golden.plan.filter(({ id }) => tiers.get(id) === 0);
  expect(Math.max(...first.map(({ tokens }) => tokens))).toBe(golden.firstTierTokens);
});

describe("who serves a step by the table of an engine that nobody tells", () => {
  test.for(golden.tables)("$name", (table) => {
    expect(servedBy(golden.plan, table)).toEqual(table.steps.map((step) => step.served));
  });
});

describe("who serves a step of an engine that drafts", () => {
  const { plan, decodeLength: length, tables } = golden.drafting;

  test("its decode steps have the length of its graphs", () => {
    expect(decodeLength(plan)).toBe(length);
    expect(plan.every(({ draftLayers = 0 }) => draftLayers > 0)).toBe(true);
  });

  test.for(tables)("$name", (table) => {
    expect(servedBy(plan, table)).toEqual(table.steps.map((step) => step.served));
  });
});

function servedBy(plan: readonly Graph[], { captured, steps }: Table): (string | null)[] {
  const held = plan.filter(({ id }) => captured.includes(id));
  const table = dispatchTable(plan, held);
  const byId = new Map(held.map((graph) => [graph.id, graph]));
  return steps.map(({ tokens, uniform }) => {
    const requests = uniform > 0 ? tokens / uniform : 1;
    return dispatch(table, byId, { tokens, requests, uniform })?.id ?? null;
  });
}
