import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ERROR_CODES } from "../../src/base/errors.ts";
import { EVENT_NAMES } from "../../src/engine/events.ts";
import * as index from "../../src/index.ts";

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

test("docs/errors.md lists exactly the codes there are", () => {
  const listed = [...read("docs/errors.md").matchAll(/^\| `(ERR_LAZYGRAPH_\w+)` \|/gm)];
  expect(listed.map(([, code]) => code)).toEqual([...ERROR_CODES]);
});

test("docs/protocol.md names every message", () => {
  const protocol = read("docs/protocol.md");
  for (const [, type] of read("src/wire/protocol.ts").matchAll(/readonly type: "(\w+)"/g)) {
    expect(protocol).toContain(`\`${type}\``);
  }
});

test("docs/protocol.md gives the limits there are", () => {
  const protocol = read("docs/protocol.md");
  for (const [, name] of read("src/wire/protocol.ts").matchAll(/^ {2}(\w+): [\d_< ]+,$/gm)) {
    expect(protocol).toContain(`\`${name}\``);
  }
});

test("docs/errors.md names every channel", () => {
  for (const name of EVENT_NAMES) expect(read("docs/errors.md")).toContain(`\`${name}\``);
});

test("the package exports these values and no others", () => {
  expect(Object.keys(index).sort()).toEqual([
    "ERROR_CODES",
    "EVENT_NAMES",
    "LazygraphError",
    "MODES",
    "OptionError",
    "PAD_LIMIT",
    "PHASES",
    "capturedGraphs",
    "codeOf",
    "connectController",
    "covers",
    "createController",
    "createCostPolicy",
    "createEagerPolicy",
    "createHttpServer",
    "createIdlePolicy",
    "createLauncher",
    "createLazyPolicy",
    "createStandby",
    "createTraceRecorder",
    "dispatch",
    "dispatchTable",
    "idealGraph",
    "missingGraphs",
    "onEvent",
    "openGpuMemory",
    "topGraphs",
  ]);
});

test("the package exports these names, types included", () => {
  const names = [...read("src/index.ts").matchAll(/\{([^}]*)\}/g)].flatMap(([, list]) =>
    (list ?? "").split(",").map((name) => name.replace(/\btype\b/, "").trim()),
  );
  expect(names.filter((name) => name !== "").sort()).toMatchSnapshot();
});
