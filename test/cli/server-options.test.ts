/** How bench, calibrate and record are given a server's key. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseOptions } from "../../src/cli/options.ts";
import { ACCESS_OPTIONS, accessOptions } from "../../src/cli/server-options.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const access = (argv: readonly string[], environment = {}) =>
  accessOptions(parseOptions(argv, ACCESS_OPTIONS), environment);

async function keyFile(text: string, mode = 0o600): Promise<string> {
  const file = join(await temporaryFolder(), "key");
  await writeFile(file, text, { mode });
  return file;
}

test("a key in a file beats the environment's, and is no argument", async () => {
  const variable = { OPENAI_API_KEY: "of-the-environment" };
  const file = await keyFile("of-the-file\n");
  expect(access(["--api-key-file", file], variable).apiKey).toBe("of-the-file");
  expect(access([], variable).apiKey).toBe("of-the-environment");
  expect(access(["--api-key", "typed"], variable).apiKey).toBe("typed");
});

test("a file that others may read, that is empty, or beside a typed key is refused", async () => {
  const open = await keyFile("of-the-file", 0o644);
  expect(() => access(["--api-key-file", open])).toThrow(/with mode 0644: `chmod 600` it/);
  const empty = await keyFile("\n");
  expect(() => access(["--api-key-file", empty])).toThrow(/to hold a key, got nothing/);
  expect(() => access(["--api-key-file", empty, "--api-key", "x"])).toThrow(/got both/);
  expect(() => access(["--api-key-file", "/nowhere/key"])).toThrow(/ENOENT/);
});
