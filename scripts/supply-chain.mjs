/**
 * What users install with the package: a bill of materials and known holes.
 *
 *   node scripts/supply-chain.mjs [FILE]    the bill, as CycloneDX, to FILE
 *
 * The lock file that both need is made in a temporary folder, from what the registry has now, as an
 * installation would. Where the registry has no audit it is skipped with the reason;
 * REQUIRE_AUDIT=1 makes that a failure.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  auditVerdict,
  requirementsOf,
  unlicensed,
  unlistedScripts,
  unpinned,
  withPython,
} from "./supply-chain-rules.mjs";

const NPM_MS_MAX = 300_000;
const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const manifest = JSON.parse(read("../package.json"));
const failures = [];

function npm(folder, ...args) {
  return spawnSync("npm", args, { cwd: folder, encoding: "utf8", timeout: NPM_MS_MAX });
}

function must(what, offenders) {
  if (offenders.length > 0) failures.push(`${what}: ${offenders.join(", ")}`);
}

const folder = mkdtempSync(join(tmpdir(), "lazygraph-supply-"));
try {
  must("versions that are no exact ones", unpinned(manifest));
  // Our own scripts have no place in a lock.
  const { scripts: _, ...bare } = manifest;
  writeFileSync(join(folder, "package.json"), JSON.stringify(bare));
  const options = ["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"];
  const made = npm(folder, "install", "--package-lock-only", ...options);
  if (made.status !== 0) throw new Error(`npm made no lock:\n${made.stdout}${made.stderr}`);
  const lock = JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8"));
  must("install scripts that allowScripts doesn't name", unlistedScripts(manifest, lock));

  const shape = ["--sbom-format", "cyclonedx", "--sbom-type", "library"];
  const billed = npm(folder, "sbom", "--package-lock-only", "--omit", "dev", ...shape);
  if (billed.status !== 0) throw new Error(`npm made no bill:\n${billed.stdout}${billed.stderr}`);
  const bill = JSON.parse(billed.stdout);
  must("packages without a license", unlicensed(bill));
  const whole = withPython(bill, requirementsOf(read("../worker/pyproject.toml")));
  const file = process.argv[2];
  if (file !== undefined) writeFileSync(file, `${JSON.stringify(whole, null, 2)}\n`);
  const where = file === undefined ? "" : ` in ${file}`;
  console.log(`bill of materials: ${whole.components.length} packages${where}`);

  const { outcome, lines } = auditVerdict(npm(folder, "audit", "--omit=dev", "--json").stdout);
  console.log(`audit ${outcome}${lines.length === 0 ? "" : `: ${lines.join("; ")}`}`);
  if (outcome === "failed") must("known holes", lines);
  if (outcome === "skipped" && process.env.REQUIRE_AUDIT === "1") must("audit skipped", lines);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const failure of failures) console.error(failure);
process.exitCode = failures.length > 0 ? 1 : 0;
