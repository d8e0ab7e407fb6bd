import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { withConfig } from "../../src/cli/config-file.ts";
import { parseOptions } from "../../src/cli/options.ts";
import { SERVE_OPTIONS } from "../../src/cli/serve.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { lazygraph } from "./helpers/command.ts";

async function config(content: unknown): Promise<string> {
  const file = join(await temporaryFolder(), "lazygraph.json");
  await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

function merged(argv: readonly string[], environment: NodeJS.ProcessEnv = {}) {
  const given = parseOptions(argv, SERVE_OPTIONS);
  return withConfig(given, SERVE_OPTIONS, environment, ({ strings, flags }) => ({
    strings: Object.fromEntries(strings),
    flags: [...flags],
  }));
}

test("entries are options: texts, numbers, lists, flags", async () => {
  const file = await config({
    mode: "lazy",
    "settle-within": 600,
    pin: ["FULL:24", "PIECEWISE"],
    "no-plan": true,
    quiet: false,
  });
  expect(merged([], { LAZYGRAPH_CONFIG: file })).toEqual({
    strings: { mode: "lazy", "settle-within": "600", pin: "FULL:24,PIECEWISE" },
    flags: ["no-plan"],
  });
});

test("the command line wins over the environment, that over the file", async () => {
  const file = await config({ mode: "eager", "plan-dir": "/file", reserve: "top" });
  const environment = { LAZYGRAPH_MODE: "lazy", LAZYGRAPH_RESERVE: "" };
  const argv = ["--config", file, "--plan-dir", "/line"];
  expect(merged(argv, environment).strings).toEqual({
    config: file,
    "plan-dir": "/line",
    reserve: "top",
  });
  expect(merged(argv, { LAZYGRAPH_CONFIG: "/nowhere" }).strings["mode"]).toBe("eager");
  expect(merged([], { LAZYGRAPH_CONFIG: "" }).strings).toEqual({});
  const secrets = await config({ keys: "/file", "http-token-file": "/token" });
  const own = { LAZYGRAPH_CONTROLLER_KEYS: "/own", LAZYGRAPH_HTTP_TOKEN: "x".repeat(16) };
  expect(merged([], { LAZYGRAPH_CONFIG: secrets, ...own }).strings).toEqual({});
  const exported = { LAZYGRAPH_CONFIG: secrets, LAZYGRAPH_SERVER_SECRET_KEY: "x".repeat(40) };
  expect(merged([], exported).strings).not.toHaveProperty("keys");
  expect(merged([], { LAZYGRAPH_CONFIG: secrets }).strings).toMatchObject({ keys: "/file" });
});

test("what the command line says of plans wins over what the file says, both ways", async () => {
  const keeping = await config({ "plan-dir": "/plans", "plan-read-only": true, quiet: true });
  const variable = { LAZYGRAPH_CONFIG: keeping };
  expect(merged(["--no-plan"], variable)).toEqual({ strings: {}, flags: ["no-plan", "quiet"] });
  const none = await config({ "no-plan": true });
  expect(merged(["--config", none, "--plan-dir", "/own"])).toEqual({
    strings: { config: none, "plan-dir": "/own" },
    flags: [],
  });
  expect(merged(["--config", none, "--plan-read-only"]).flags).toEqual(["plan-read-only"]);
  // An entry that is overruled is checked all the same.
  const wrong = await config({ "plan-dir": 1 });
  expect(() => merged(["--config", wrong, "--no-plan"])).toThrow('"plan-dir" in ');
});

test("both in one file are refused", async () => {
  const file = await config({ "no-plan": true, "plan-dir": "/plans" });
  const { code, stderr } = await lazygraph(["serve", "--config", file]).finished;
  expect(code).toBe(2);
  expect(stderr).toContain(`Expected "no-plan" in ${file} or `);
});

test.for([
  ["{", /to be JSON, but it can.t be parsed \(/],
  ["[]", /to hold a JSON object, got "\[\]"\.$/],
  [{ mdoe: "lazy" }, /known options in \S+, got "mdoe": did you mean mode\?$/],
  [{ config: "x" }, /got "config": known are /],
  [{ zzz: 1 }, /got "zzz": known are endpoint, keys, http, /],
  [{ quiet: "yes" }, /"quiet" in \S+ to be true or false, got "yes"\.$/],
  [{ mode: null }, /"mode" in \S+ to be a text, got null\.$/],
  [{ mode: ["lazy"] }, /"mode" in \S+ to be a text, got /],
  [{ reserve: 1 }, /"reserve" in \S+ to be a text, got 1\.$/],
  [{ "settle-within": "600" }, /"settle-within" in \S+ to be a number, got "600"\.$/],
  [{ pin: [null] }, /"pin" in \S+ to be a text, a number or a list of them, got/],
  [{ pin: [] }, /"pin" in \S+ to be a text/],
  [" ".repeat(70_000), /got 70000 bytes, over the limit of 65536\.$/],
] as const)("%j is refused in one sentence", async ([content, sentence]) => {
  const file = await config(content);
  expect(() => merged(["--config", file])).toThrow(sentence);
});

test("no such file; and what it says is checked like an option", async () => {
  expect(() => merged(["--config", "/nowhere/x"])).toThrow(
    "Expected /nowhere/x to be a readable JSON file, got ENOENT: there is no such file, so check its name.",
  );
  const file = await config({ mode: "fast" });
  const { code, stderr } = await lazygraph(["serve", "--config", file]).finished;
  expect(code).toBe(2);
  expect(stderr).toBe(
    `lazygraph: Expected "mode" in ${file} to be eager, lazy or idle, got "fast". ` +
      "[ERR_LAZYGRAPH_OPTION]\n",
  );
  const typed = await lazygraph(["serve", "--config", file, "--mode", "slow"]).finished;
  expect(typed.stderr).toContain('Expected --mode to be eager, lazy or idle, got "slow".');
});

test("a file that nobody typed is named with its variable", async () => {
  const environment = { LAZYGRAPH_CONFIG: "/nowhere/x" };
  expect(() => merged([], environment)).toThrow(
    "Expected /nowhere/x (LAZYGRAPH_CONFIG) to be a readable JSON file, got ENOENT: there is no such file, so check its name.",
  );
  const file = await config({ pin: ["PIECWISE"] });
  const variable = { LAZYGRAPH_CONFIG: file };
  const { code, stderr } = await lazygraph(["run", "--", "true"], variable).finished;
  expect(code).toBe(2);
  expect(stderr).toContain(`Expected "pin" in ${file} (LAZYGRAPH_CONFIG) to be graphs`);
});

test("serve takes it", async () => {
  const file = await config({ mode: "lazy", http: "127.0.0.1:0", endpoint: "tcp://127.0.0.1:0" });
  const running = lazygraph(["serve"], { LAZYGRAPH_CONFIG: file });
  await running.line("stderr", /\(mode lazy\), HTTP at/);
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ code: 0 });
});
