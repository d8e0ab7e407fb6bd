/** When the commands under test are built again. */

import { mkdir, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { newest } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";

test("a source that was changed, came or went makes what was built of it old", async () => {
  const folder = await temporaryFolder();
  const inner = join(folder, "inner");
  const [kept, other] = [join(inner, "kept.ts"), join(inner, "other.ts")];
  await mkdir(inner);
  await writeFile(kept, "");
  const settle = async (): Promise<void> => {
    for (const path of [kept, inner, folder]) await utimes(path, 1, 1);
  };
  await settle();
  expect(newest(folder)).toBe(1000);
  for (const change of [() => utimes(kept, 2, 2), () => writeFile(other, ""), () => rm(other)]) {
    await settle();
    await change();
    expect(newest(folder)).toBeGreaterThan(1000);
  }
});
