import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { packageVersion } from "../../src/base/version.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const SOURCE = fileURLToPath(new URL("../../src/base/version.ts", import.meta.url));

/** The module as a bundler leaves it: beside somebody else's package.json, or beside none. */
async function elsewhere(about?: object): Promise<typeof packageVersion> {
  const folder = await temporaryFolder();
  await mkdir(join(folder, "dist/base"), { recursive: true });
  await copyFile(SOURCE, join(folder, "dist/base/version.ts"));
  if (about !== undefined) await writeFile(join(folder, "package.json"), JSON.stringify(about));
  const url = pathToFileURL(join(folder, "dist/base/version.ts")).href;
  const copy = (await import(/* @vite-ignore */ url)) as { packageVersion: typeof packageVersion };
  return copy.packageVersion;
}

test("the version is this package's; in a bundle it is unknown, and nobody's own is taken for it", async () => {
  expect(packageVersion()).toMatch(/^\d+\.\d+\.\d+/);
  expect((await elsewhere())()).toBe("unknown");
  expect((await elsewhere({ name: "my-gateway", version: "9.9.9" }))()).toBe("unknown");
  expect((await elsewhere({ name: "lazygraph", version: "1.2.3" }))()).toBe("1.2.3");
});
