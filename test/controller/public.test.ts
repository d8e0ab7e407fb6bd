import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ERROR_CODES } from "../../src/base/errors.ts";
import { EVENT_NAMES } from "../../src/engine/events.ts";
import * as index from "../../src/index.ts";
import { LIMITS } from "../../src/wire/protocol.ts";

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

test("docs/errors.md lists exactly the codes there are", () => {
  const listed = [...read("docs/errors.md").matchAll(/^\| `(ERR_LAZYGRAPH_\w+)` \|/gm)];
  expect(listed.map(([, code]) => code)).toEqual([...ERROR_CODES]);
});

test("docs/errors.md lists every other code that an answer of ours may have", () => {
  /** Of Node, npm's packages and libzmq: looked for in what they throw. */
  const theirs = [
    "ERR_CHILD_PROCESS_STDIO_MAXBUFFER",
    "ERR_MODULE_NOT_FOUND",
    "ERR_ZMTP_MECHANISM_MISMATCH",
  ];
  const files = readdirSync(new URL("../../src", import.meta.url), { recursive: true });
  const sources = files.map(String).filter((name) => name.endsWith(".ts"));
  const named = sources.flatMap((name) =>
    [...read(`src/${name}`).matchAll(/"(ERR_\w*[A-Z])"/g)].map(([, code = ""]) => code),
  );
  const own = new Set(named.filter((code) => !theirs.includes(code)));
  const listed = [...read("docs/errors.md").matchAll(/^\| `(ERR_\w+)` \|/gm)];
  expect([...own].sort()).toEqual(listed.map(([, code = ""]) => code).sort());
});

test("docs/protocol.md names every message", () => {
  const protocol = read("docs/protocol.md");
  for (const [, type] of read("src/wire/protocol.ts").matchAll(/readonly type: "(\w+)"/g)) {
    expect(protocol).toContain(`\`${type}\``);
  }
});

test("docs/protocol.md gives each limit in its table, with its value", () => {
  const rows = read("docs/protocol.md").matchAll(/^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$/gm);
  const values = new Map(
    [...rows].flatMap(([, names = "", text = ""]) =>
      [...names.matchAll(/\w+/g)].map(([name]) => [name, text] as const),
    ),
  );
  for (const [name, value] of Object.entries(LIMITS)) {
    const told = name === "frameBytes" ? "1 MiB" : value.toLocaleString("en");
    expect(` ${values.get(name)} `, name).toContain(` ${told}`);
  }
});

test("docs/protocol.md names every field of a start", () => {
  const [, fields = ""] = /interface Start \{(.*?)^\}/ms.exec(read("src/wire/protocol.ts")) ?? [];
  const names = [...fields.matchAll(/readonly (\w+)\??:/g)].map(([, name]) => name);
  expect(names).toContain("more");
  const page = read("docs/protocol.md");
  for (const name of names) expect(page).toMatch(new RegExp(`\`(start\\.)?${name}\``));
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
