import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { OptionError } from "../../src/base/errors.ts";
import { HTTP_OPTIONS, httpSide } from "../../src/cli/http-side.ts";
import { isEngineName } from "../../src/cli/key-clients.ts";
import {
  endpointOption,
  engineNameOption,
  hostPortOption,
  modeOption,
  type OptionSpec,
  parseOptions,
  secondsOption,
} from "../../src/cli/options.ts";
import { engineName } from "../../src/controller/call-options.ts";
import { ENGINE_RULES } from "../../src/sim/live/engine-rules.ts";
import { isId } from "../../src/wire/check.ts";

const SPEC = {
  mode: "string",
  endpoint: "string",
  ...HTTP_OPTIONS,
  engine: "string",
  "settle-within": "string",
  json: "boolean",
} satisfies OptionSpec;

function parse(...argv: string[]): ReturnType<typeof parseOptions> {
  return parseOptions(argv, SPEC);
}

describe("what parses", () => {
  test("values after a space or an equals sign, and flags", () => {
    const options = parse("--mode", "lazy", "--endpoint=tcp://127.0.0.1:0", "--json", "-h");
    expect(Object.fromEntries(options.strings)).toEqual({
      mode: "lazy",
      endpoint: "tcp://127.0.0.1:0",
    });
    expect([...options.flags]).toEqual(["json", "help"]);
  });

  test("a value that begins with a dash needs an equals sign", () => {
    expect(parse("--engine=--odd").strings.get("engine")).toBe("--odd");
  });

  test.for(["two words", "host/模型", "x".repeat(128)])("the engine name %j", (name) => {
    expect(engineNameOption(parse("--engine", name))).toBe(name);
  });

  test.for([
    ["x".repeat(128), true],
    ["🚀".repeat(64), true],
    ["🚀".repeat(65), false],
    ["x".repeat(129), false],
    ["\ud800", false],
    ["a\u0085b", false],
    ["", false],
  ] as const)("one rule for the name %j, whoever checks it", ([name, isSound]) => {
    const rules = [engineName, ENGINE_RULES.engine].map((schema) => v.is(schema, name));
    expect([isId(name), isEngineName(name), ...rules]).toEqual(Array(4).fill(isSound));
  });

  test("an address for others, when asked for or with a token", () => {
    const address = { host: "0.0.0.0", port: 80 };
    const side = httpSide(parse("--http", "0.0.0.0:80", "--http-unsafe"), {});
    expect(side).toMatchObject({ address, unsafe: true, tokenForReads: false });
    const options = parse("--http", "0.0.0.0:80", "--http-token-file", "/token");
    expect(httpSide(options, {})).toMatchObject({ address, tokenForReads: true });
    const token = { LAZYGRAPH_HTTP_TOKEN: "0123456789abcdef" };
    const local = httpSide(parse("--http", "[::1]:80"), token);
    expect(local).toMatchObject({ address: { host: "::1", port: 80 }, tokenForReads: false });
    expect(httpSide(parse("--http", "[::]:80"), token)?.tokenForReads).toBe(true);
    expect(httpSide(parse("--http", "unix:/run/x.sock"), {})?.address).toEqual({
      path: "/run/x.sock",
    });
    expect(httpSide(parse(), {})).toBeUndefined();
  });

  test.for([
    ["127.0.0.1:7480", { host: "127.0.0.1", port: 7480 }],
    ["localhost:0", { host: "localhost", port: 0 }],
    ["[::1]:80", { host: "::1", port: 80 }],
  ] as const)("the address %s", ([text, expected]) => {
    expect(hostPortOption("--http", text)).toEqual(expected);
  });

  test.for(["tcp://127.0.0.1:0", "tcp://*:5757", "tcp://[::1]:5757", "ipc:///run/lazygraph.sock"])(
    "the endpoint %s",
    (endpoint) => {
      expect(endpointOption(parse("--endpoint", endpoint))).toBe(endpoint);
    },
  );
});

test.for([
  [
    ["--mod", "lazy"],
    "--mod",
    'Expected an option of this command, got the unknown option "--mod": did you mean --mode?',
  ],
  [["-x"], "-x", "got the unknown option"],
  [["--mode"], "--mode", "Expected --mode to have a value, got none."],
  [["--mode="], "--mode", "Expected --mode to have a value, got none."],
  [["--mode", "--json"], "--mode", 'got the next option "--json": write it before that one.'],
  [["--mode", "lazy", "--mode", "idle"], "--mode", "at most once"],
  [["--json=yes"], "--json", 'Expected --json to be given without a value, got "yes".'],
  [["serve"], "serve", 'Expected only options, got the argument "serve"'],
  [["--", "vllm"], "--", "Expected no `--` here"],
  [["--__proto__", "x"], "--__proto__", "got the unknown option"],
] as const)("%j names the option, the expectation and what came", ([argv, option, sentence]) => {
  const error = thrownBy(() => parse(...argv));
  expect(error.option).toBe(option);
  expect(error.message).toContain(sentence);
  expect(error.message).not.toContain("\n");
});

test.for([
  ["mode", "fast", "--mode to be eager, lazy or idle"],
  ["settle-within", "0", "--settle-within to be a number of seconds above 0"],
  ["settle-within", "-5", "--settle-within"],
  ["settle-within", "1e9", "--settle-within"],
  ["settle-within", " 5", "--settle-within"],
  ["endpoint", "127.0.0.1:5757", "--endpoint to be an endpoint such as tcp://"],
  ["endpoint", "tcp://127.0.0.1", "--endpoint"],
  ["engine", "two\nlines", "--engine to be 1 to 128 characters"],
  ["engine", "x".repeat(129), "--engine to be 1 to 128 characters"],
  ["http", "192.0.2.1:7480", "--http to be on loopback"],
  ["http", "[::]:7480", "--http to be on loopback"],
  ["http", `unix:/${"x".repeat(107)}`, "a path of at most 107 bytes"],
] as const)("--%s=%s is refused", ([name, value, sentence]) => {
  const error = thrownBy(() => {
    const options = parse(`--${name}=${value}`);
    modeOption(options, "idle");
    secondsOption(options, "settle-within");
    endpointOption(options);
    engineNameOption(options);
    httpSide(options, {});
  });
  expect(error.message).toContain(sentence);
  expect(error.message).toContain(JSON.stringify(value).slice(0, 70));
  expect(error.code).toBe("ERR_LAZYGRAPH_OPTION");
});

test.for(["127.0.0.1", "127.0.0.1:65536", "::1:80", ":80", "a b:1"])(
  "the address %j is refused",
  (address) => {
    expect(thrownBy(() => hostPortOption("--http", address)).message).toContain("HOST:PORT");
  },
);

test.for([
  [["--http-token-file", "/token"], "Expected --http beside --http-token-file, got none"],
  [["--http", "[::1]:1", "--http-token-reads"], "Expected a token beside --http-token-reads"],
  [["--http", "[::1]:1", "--http-cert", "/c"], "got no --http-key"],
  [["--http", "[::1]:1", "--http-key", "/k"], "got no --http-cert"],
] as const)("%j lacks what goes with it", ([argv, sentence]) => {
  expect(thrownBy(() => httpSide(parse(...argv), {})).message).toContain(sentence);
});

test("a long argument is cut short", () => {
  expect(thrownBy(() => parse("x".repeat(10_000))).message.length).toBeLessThan(200);
});

function thrownBy(action: () => unknown): OptionError {
  try {
    action();
  } catch (error) {
    if (error instanceof OptionError) return error;
    throw error;
  }
  throw new Error("Expected an OptionError, got none.");
}
