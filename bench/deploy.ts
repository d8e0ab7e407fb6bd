/**
 * What deploy/ has, tried without Docker: the images' build steps run as they are written, the
 * manifests, the compose file and the unit against their schemas. The checks are test/deploy's; here
 * is what became of them, so that a skipped one is seen.
 *
 *   npm run bench:deploy        prints the counts, writes bench/results/deploy.json
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

interface TestFile {
  readonly name: string;
  readonly assertionResults: readonly { readonly status: string; readonly title: string }[];
}

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "lazygraph-deploy-"));
const output = join(folder, "tests.json");
const args = ["vitest", "run", "test/deploy", "--reporter=json", `--outputFile=${output}`];
spawnSync("npx", args, { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
const { testResults } = JSON.parse(readFileSync(output, "utf8")) as { testResults: TestFile[] };
rmSync(folder, { recursive: true });
const files = testResults
  .map(({ name, assertionResults }) => {
    const count = (status: string): number =>
      assertionResults.filter((result) => result.status === status).length;
    const passed = count("passed");
    const failed = count("failed");
    const skipped = assertionResults.length - passed - failed;
    return {
      ...{ file: basename(name, ".test.ts"), passed, skipped, failed },
      checks: assertionResults.map(({ status, title }) => `${status}: ${title}`),
    };
  })
  .sort((a, b) => (a.file < b.file ? -1 : 1));
for (const { file, passed, skipped, failed } of files) {
  console.log(`${file}: ${passed} passed, ${skipped} skipped, ${failed} failed`);
}
const result = { what: "checks of deploy/ without Docker", files };
const target = new URL("results/deploy.json", import.meta.url);
writeFileSync(target, `${JSON.stringify(result, null, 1)}\n`);
const allPassed = files.length > 0 && files.every(({ skipped, failed }) => skipped + failed === 0);
process.exitCode = allPassed ? 0 : 1;
