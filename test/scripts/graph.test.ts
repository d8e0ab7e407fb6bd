import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";

const SCRIPT = fileURLToPath(new URL("../../scripts/graph.mjs", import.meta.url));

async function graphOf(files: Readonly<Record<string, string>>, ...args: string[]) {
  const folder = await temporaryFolder();
  for (const [file, source] of Object.entries(files)) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), source);
  }
  return spawnSync(process.execPath, [SCRIPT, ...args, folder], { encoding: "utf8" });
}

const A = 'import type { B } from "../b/b.ts";\nexport type A = B;\n';
const B = 'import type { C } from "../c.ts";\nexport type B = C;\n';

test("rooms are folders and files of the root; arrows are counted once", async () => {
  const files = {
    "src/a/a.ts": A,
    "src/a/again.ts": A,
    "src/b/b.ts": B,
    "src/c.ts": "export type C = 1;\n",
  };
  const { status, stdout } = await graphOf(files);
  expect(stdout).toBe("3 rooms, 2 arrows, 0 cycles\n");
  expect(status).toBe(0);
  const drawn = await graphOf(files, "--mermaid");
  expect(drawn.stdout).toBe("graph BT\n  a --> b\n  b --> c.ts\n");
});

test("a cycle of types is one", async () => {
  const { status, stdout } = await graphOf({
    "src/a/a.ts": A,
    "src/b/b.ts": 'import type { A } from "../a/a.ts";\nexport type B = A;\n',
  });
  expect(stdout).toContain("2 rooms, 2 arrows, 1 cycles\ncycle: ");
  expect(status).toBe(1);
});

test("an import that leads nowhere is told, and no graph", async () => {
  const { status, stdout, stderr } = await graphOf({ "src/a/a.ts": A });
  expect(stdout).toBe("");
  expect(stderr).toContain("got ../b/b.ts in src/a/a.ts");
  expect(status).toBe(2);
});

test("the sources have no cycle", () => {
  const { status, stdout } = spawnSync(process.execPath, [SCRIPT], { encoding: "utf8" });
  expect(stdout).toContain(" 0 cycles");
  expect(status).toBe(0);
});
