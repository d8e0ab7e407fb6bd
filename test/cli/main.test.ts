import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MAIN } from "../helpers/built.ts";
import { finish } from "./helpers/command.ts";

const COMMANDS =
  "run serve startup launcher caches status keys demo simulated-engine simulate plan calibrate record trace bench doctor".split(
    " ",
  );
const PACKAGE = new URL("../../package.json", import.meta.url);

describe("lazygraph", () => {
  test("--help lists exactly the commands that exist", async () => {
    const { code, stdout, stderr } = await finish(["--help"]);
    const section = /Commands:\n((?: {2}.*\n)+)/.exec(stdout)?.[1] ?? "";
    expect(section.match(/^ {2}\S+/gm)?.map((name) => name.trim())).toEqual(COMMANDS);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  test("without a command prints its help on stderr and exits 2", async () => {
    const { code, stdout, stderr } = await finish([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("Usage: lazygraph COMMAND");
  });

  test("--version is the package's", async () => {
    const { version } = JSON.parse(readFileSync(PACKAGE, "utf8"));
    expect(await finish(["--version"])).toMatchObject({ code: 0, stdout: `${version}\n` });
  });

  test.for([
    ["sevre", "Expected the command to be `serve`"],
    ["constructor", "Expected the command to be one of run, serve"],
    ["--mode", "Expected the command"],
  ] as const)("%s is a usage error", async ([name, sentence]) => {
    const { code, stdout, stderr } = await finish([name]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: .* \[ERR_LAZYGRAPH_OPTION\]\n$/);
  });
});

describe("an output that can't be written", () => {
  const run = (redirected: string): SpawnSyncReturns<string> => {
    const script = `exec "$0" "$1" trace inspect azure-llm-2023-conversation ${redirected}`;
    return spawnSync("sh", ["-c", script, process.execPath, MAIN], { encoding: "utf8" });
  };

  test("a full disk under stdout is one sentence and exit code 1", () => {
    const { status, stderr } = run("> /dev/full");
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^lazygraph: Expected stdout to take all .*, got ENOSPC: .* \[ERR_LAZYGRAPH_FILE\]\n$/,
    );
  });

  test("one under stderr alone changes nothing", () => {
    const { status, stdout } = run("2> /dev/full");
    expect(status).toBe(0);
    expect(stdout).toContain("azure-llm-2023-conversation: azure, 19,366 requests");
  });
});

test("an example's options are those of its command", async () => {
  const help = async (name: string) => [name, (await finish([name, "--help"])).stdout] as const;
  const helps = new Map(await Promise.all(COMMANDS.map(help)));
  for (const text of helps.values()) {
    const examples = text.split("Examples:")[1]?.replaceAll("\\\n", " ") ?? "";
    for (const words of examples.split(/\n| -- |'/)) {
      const [, name = "", rest = ""] = /lazygraph ([a-z-]+)(.*)/.exec(words) ?? [];
      for (const [option] of rest.matchAll(/--[a-z-]+/g)) {
        expect(helps.get(name)?.split("Examples:")[0], words).toContain(`${option} `);
      }
    }
  }
});

describe.for(COMMANDS)("lazygraph %s", (name) => {
  test("--help has examples and nothing else happens", async () => {
    const { code, stdout, stderr } = await finish([name, "--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Usage: lazygraph ${name}`);
    expect(stdout).toContain("Examples:");
  });

  test("an unknown option is one sentence and exit code 2", async () => {
    const { code, stdout, stderr } = await finish([name, "--nonsense"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^lazygraph: .*--nonsense.* \[ERR_LAZYGRAPH_OPTION\]\n$/);
  });
});
