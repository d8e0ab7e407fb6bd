/** What a dependency tree must be, decided from package.json, a lock of it and npm's own answers. Pure. */

const EXACT = /^\d+\.\d+\.\d+(-[\w.]+)?$/;
/** Worse than these ends a merge; these are told. */
const TOLERATED = new Set(["info", "low", "moderate"]);

/** Dependencies whose version is a range: without a lock file the pin is all that holds them. */
export function unpinned(manifest) {
  return ["dependencies", "optionalDependencies", "devDependencies"].flatMap((kind) =>
    Object.entries(manifest[kind] ?? {})
      .filter(([, version]) => !EXACT.test(version))
      .map(([name, version]) => `${name}@${version} (${kind})`),
  );
}

/** Packages of a lock that would run a script when installed and that `allowScripts` doesn't name. */
export function unlistedScripts(manifest, lock) {
  const listed = new Set(Object.keys(manifest.allowScripts ?? {}));
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== "" && entry.hasInstallScript === true)
    .map(([path]) => path.split("node_modules/").at(-1))
    .filter((name) => !listed.has(name));
}

/** Packages of a bill that say nothing of their license. */
export function unlicensed(bill) {
  return bill.components
    .filter(({ licenses = [] }) => licenses.length === 0)
    .map(({ name, version }) => `${name}@${version}`);
}

/**
 * What `npm audit --json` said: `skipped` where it could not ask, with the reason.
 *
 * @returns {{ outcome: "passed" | "failed" | "skipped", lines: string[] }}
 */
export function auditVerdict(text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    return { outcome: "skipped", lines: ["npm audit gave no JSON"] };
  }
  if (answer.vulnerabilities === undefined) {
    const reason = String(answer.message || answer.error?.summary || "no reason given");
    const line = reason.split("\n")[0].slice(0, 200);
    return { outcome: "skipped", lines: [`the registry answered no audit: ${line}`] };
  }
  const found = Object.values(answer.vulnerabilities);
  const lines = found.map(({ name, severity, range }) => `${severity}: ${name} ${range}`);
  const bad = found.some(({ severity }) => !TOLERATED.has(severity));
  return { outcome: bad ? "failed" : "passed", lines };
}

/** The bill with what the Python plugin needs, which vLLM's image brings in versions of its own. */
export function withPython(bill, requirements) {
  const components = requirements.map((requirement) => {
    const name = /^[A-Za-z0-9._-]+/.exec(requirement)?.[0] ?? requirement;
    const ref = `pkg:pypi/${name.toLowerCase()}`;
    const properties = [{ name: "lazygraph:required", value: requirement }];
    return { type: "library", "bom-ref": ref, name, purl: ref, scope: "required", properties };
  });
  return { ...bill, components: [...bill.components, ...components] };
}

/** The run-time requirements of a pyproject.toml. */
export function requirementsOf(pyproject) {
  const list = /^dependencies = \[([^\]]*)\]$/m.exec(pyproject)?.[1];
  if (list === undefined) throw new Error("Expected `dependencies = […]` in pyproject.toml.");
  return [...list.matchAll(/"([^"]+)"/g)].map(([, requirement]) => requirement);
}
