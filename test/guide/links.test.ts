/**
 * Every link of the documentation to a file of ours leads to one, and to a heading that is there, and
 * every command of ours has options that it knows.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PAGES = [
  ...["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"],
  ...["bench", "findings", "worker", "deploy", "examples/gateway", "traces"].map(
    (at) => `${at}/README.md`,
  ),
  ...readdirSync(join(ROOT, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** As GitHub makes an anchor of a heading. */
function anchorsOf(page: string): Set<string> {
  const text = readFileSync(page, "utf8").replaceAll(/^```[\s\S]*?^```/gm, "");
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => heading);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
        .trim()
        .replaceAll(" ", "-"),
    ),
  );
}

test.for(PAGES)("%s", (page) => {
  const text = readFileSync(join(ROOT, page), "utf8");
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => link);
  const lost = links
    .filter((link) => !/^[a-z]+:/.test(link))
    .filter((link) => {
      const [path = "", anchor] = link.split("#");
      const file = path === "" ? join(ROOT, page) : join(ROOT, dirname(page), path);
      if (!existsSync(file)) return true;
      return anchor !== undefined && file.endsWith(".md") && !anchorsOf(file).has(anchor);
    });
  expect(lost).toEqual([]);
});

test.for(PAGES)("%s names files of the repository that are there", (page) => {
  const text = readFileSync(join(ROOT, page), "utf8");
  const paths = [...text.matchAll(/`((?:bench|findings|test)\/[\w./-]+)`/g)];
  const lost = paths.map(([, path = ""]) => path).filter((path) => !existsSync(join(ROOT, path)));
  expect(lost).toEqual([]);
});

test("modules that the policies' page names are there", () => {
  const text = readFileSync(join(ROOT, "docs/policy.md"), "utf8");
  const files = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" });
  const names = [...text.matchAll(/`([\w-]+\.ts)`/g)].map(([, name]) => name);
  const lost = names.filter((name) => !files.some((file) => basename(file) === name));
  expect(lost).toEqual([]);
});

test("the plugin's page has every module but those that vLLM's folder keeps to itself", () => {
  const root = join(ROOT, "worker/src/lazygraph_vllm");
  const page = readFileSync(join(ROOT, "worker/README.md"), "utf8");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" });
  const modules = files.filter((name) => name.endsWith(".py") && !basename(name).startsWith("__"));
  const named = new Set([...page.matchAll(/`(\w+\.py)`/g)].map(([, name]) => name));
  const lost = [...named].filter((name) => !modules.some((file) => basename(file) === name));
  expect(lost).toEqual([]);
  const untold = modules.filter((file) => dirname(file) !== "vllm" && !named.has(basename(file)));
  expect(untold).toEqual([]);
});

test("the manual and the notebook have every page between them", () => {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  for (const page of PAGES.filter((name) => name.startsWith("docs/"))) {
    expect(readme).toContain(`(${page}`);
  }
});

/** Commands on a page whose options they don't know, by their own parsers: with --help none runs. */
async function unknownOptions(text: string): Promise<string[]> {
  const help = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const unknown: string[] = [];
  const lines = text.replaceAll("\\\n", " ");
  for (const [, before, name = "", words = ""] of lines.matchAll(
    /([`\s=])lazygraph ([a-z-]+)\b([^\n`]*)/g,
  )) {
    const file = new URL(`../../src/cli/${name}.ts`, import.meta.url);
    if (!existsSync(file)) {
      if (before === "`") unknown.push(name);
      continue;
    }
    const run = Object.entries(await import(file.href)).find(([key]) => key.startsWith("run"))?.[1];
    const [own = ""] = words.replaceAll(/'[^']*'|"[^"]*"/g, "x").split(/ (?:--|[|;#>]|&&) /);
    const action = /^ ([a-z]+)\b/.exec(own)?.slice(1) ?? [];
    for (const [option] of own.matchAll(/(?<=[ [])--[a-z-]+/g)) {
      const fault = await (run as (argv: string[]) => Promise<number>)([
        ...action,
        option,
        "x",
        "--help",
      ]).catch(String);
      if (/unknown option/.test(String(fault))) unknown.push(`${name} ${option}`);
    }
  }
  help.mockRestore();
  return unknown;
}

test.for(PAGES)("%s has commands with options that they know", async (page) => {
  expect(await unknownOptions(readFileSync(join(ROOT, page), "utf8"))).toEqual([]);
});

test("an option that a command doesn't know is seen, in a sentence or a script", async () => {
  const page =
    "`lazygraph doctor [--verdict] -- vllm serve --x`\n" +
    "`lazygraph docter`\n$ npx lazygraph keys new a \\\n  --json --sever b\nlazygraph serve --quiet # --no\n";
  expect(await unknownOptions(page)).toEqual(["doctor --verdict", "docter", "keys --sever"]);
});
