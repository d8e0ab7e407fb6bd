import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { vllmCommand } from "../../src/cli/vllm-command.ts";

interface Case {
  readonly command: string;
  readonly file?: string;
  readonly words?: string;
  readonly pythonOptions?: string;
  readonly variables?: Record<string, string>;
}

/** The launcher has the same ones: `worker/tests/test_launcher_request.py`. */
const GOLDEN = new URL("../golden/vllm-commands.json", import.meta.url);
const CASES: readonly Case[] = JSON.parse(readFileSync(GOLDEN, "utf8"));

function split(words = ""): string[] {
  return words.split(" ").filter((word) => word !== "");
}

test.each(CASES.filter(({ file }) => file !== undefined))("a server by $command", (each) => {
  expect(vllmCommand(split(each.command))).toEqual({
    file: each.file,
    pythonOptions: split(each.pythonOptions),
    words: split(each.words),
    variables: each.variables ?? {},
  });
});

test.each(CASES.filter(({ file }) => file === undefined))("$command is none", ({ command }) => {
  const shown = JSON.stringify(split(command).slice(0, 3).join(" "));
  expect(() => vllmCommand(split(command))).toThrow(
    expect.objectContaining({
      code: "ERR_LAZYGRAPH_COMMAND_NOT_VLLM",
      message: expect.stringContaining(shown),
    }),
  );
});
