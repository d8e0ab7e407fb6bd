import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

function moduleOf(text: string): string {
  return `data:text/javascript,${encodeURIComponent(text)}`;
}

/** A Node.js process in which one package isn't installed. */
const WITHOUT = moduleOf(`
  import { register } from "node:module";
  register(${JSON.stringify(
    moduleOf(`
      export async function resolve(name, context, next) {
        if (!name.startsWith("gpt-tokenizer")) return next(name, context);
        throw Object.assign(new Error("Cannot find " + name), { code: "ERR_MODULE_NOT_FOUND" });
      }
    `),
  )});
`);
const SCRIPT = `
  import { readShareGpt } from "./src/bench/sharegpt.ts";
  const told = await readShareGpt(process.argv[1]).then(
    ({ conversations }) => ({ conversations: conversations.length }),
    ({ code, message }) => ({ code, message }),
  );
  console.log(JSON.stringify(told));
`;

async function read(file: string, ...more: string[]): Promise<unknown> {
  const args = ["--import", "tsx", ...more, "--input-type=module", "-e", SCRIPT, file];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT });
  return JSON.parse(stdout);
}

test("without the tokenizer a ShareGPT file is refused with what to install", async () => {
  const file = join(await temporaryFolder(), "one.json");
  const turns = ["What does a graph of one size cost?", "Twenty milliseconds, once."];
  const conversations = turns.map((value, i) => ({ from: i === 0 ? "human" : "gpt", value }));
  await writeFile(file, JSON.stringify([{ conversations }]));
  expect(await read(file)).toEqual({ conversations: 1 });
  expect(await read(file, "--import", WITHOUT)).toEqual({
    code: "ERR_LAZYGRAPH_BENCH",
    message:
      "Expected the package gpt-tokenizer beside lazygraph, to count the tokens of ShareGPT's " +
      "text, got none: run `npm install gpt-tokenizer@4`.",
  });
});
