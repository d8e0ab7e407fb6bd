/**
 * Validates deploy/kubernetes against Kubernetes' own schemas, strictly: unknown fields are
 * mistakes. They come with a Python package, in an environment outside the clone, made once.
 * A ServiceMonitor is of another API group; test/deploy checks what it refers to.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";
import { cacheFolder, ensureVenv } from "./python.mjs";

const VERSION = "1.37.0";
/** The newest release, and the oldest that the package has a schema of. */
const KUBERNETES = ["1.37.0", "1.25.0"];
const FOREIGN = new Set(["ServiceMonitor"]);

const manifests = fileURLToPath(new URL("../deploy/kubernetes", import.meta.url));
const python = ensureVenv(
  join(cacheFolder(), `kubernetes-validate-${VERSION}`),
  [[`kubernetes-validate==${VERSION}`]],
  { timeoutMs: 300_000 },
);
const folder = mkdtempSync(join(tmpdir(), "lazygraph-manifests-"));
try {
  const files = [];
  for (const name of readdirSync(manifests)) {
    for (const [index, document] of parseAllDocuments(
      readFileSync(join(manifests, name), "utf8"),
    ).entries()) {
      const resource = document.toJS();
      if (FOREIGN.has(resource.kind)) continue;
      const file = join(folder, `${name}-${index}-${resource.kind}.json`);
      writeFileSync(file, JSON.stringify(resource));
      files.push(file);
    }
  }
  if (files.length === 0) throw new Error(`Expected manifests in ${manifests}, got none.`);
  for (const version of KUBERNETES) {
    const args = ["-m", "kubernetes_validate", "--strict", "--quiet", "-k", version, ...files];
    const { status, stdout, stderr } = spawnSync(python, args, { encoding: "utf8" });
    if (status !== 0) {
      console.error(`Kubernetes ${version}:\n${stdout}${stderr}`);
      process.exitCode = 1;
    }
  }
  if (process.exitCode === undefined) {
    console.log(`${files.length} manifests are valid for Kubernetes ${KUBERNETES.join(" and ")}.`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
