/** What stands in the packed package: nothing that its users can't use. */

import { execFile } from "node:child_process";
import { join, posix } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";
import { packInto } from "./packed.ts";

const execute = promisify(execFile);
/** Scripts of a package that npm asks its users to approve, or that it warns of. */
const OF_INSTALLS = ["preinstall", "install", "postinstall", "preprepare", "prepare", "prepublish"];

test("no source maps, which would point at sources that aren't in it, and no script of installs", {
  timeout: 120_000,
}, async () => {
  const folder = await temporaryFolder();
  const tarball = join(folder, await packInto(folder));
  const { stdout } = await execute("tar", ["-tzf", tarball]);
  const names = stdout.trim().split("\n");
  expect(names).toContain("package/dist/cli/main.js");
  expect(names.filter((name) => name.endsWith(".map"))).toEqual([]);
  const of = async (name: string) =>
    (await execute("tar", ["-xzOf", tarball, `package/${name}`])).stdout;
  expect(await of("dist/cli/main.js")).not.toContain("sourceMappingURL");
  const { scripts } = JSON.parse(await of("package.json"));
  expect(Object.keys(scripts)).toContain("prepack");
  expect(OF_INSTALLS.filter((name) => name in scripts)).toEqual([]);
  const pages = names.filter((name) => name.endsWith(".md"));
  expect(pages).toContain("package/docs/guide.md");
  const dead = await Promise.all(
    pages.map(async (page) => {
      const text = await of(page.replace("package/", ""));
      return deadLinks(page, text, names);
    }),
  );
  expect(dead.flat()).toEqual([]);
});

/** Links to files, or folders, that aren't in the package. */
function deadLinks(page: string, text: string, names: readonly string[]): string[] {
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => link);
  return links
    .filter((link) => !/^(#|[a-z]+:)/.test(link))
    .filter((link) => {
      const [path = ""] = link.split("#");
      const to = posix.join(posix.dirname(page), path);
      return !names.some((name) => name === to || name.startsWith(`${to.replace(/\/$/, "")}/`));
    })
    .map((link) => `${page}: ${link}`);
}

test("a link out of the package is found", () => {
  const names = ["package/README.md", "package/docs/api.md", "package/traces/day.csv"];
  const text =
    "[a](../README.md#try-it), [b](#here), [c](https://x), [d](../traces/), [e](../b.md)";
  expect(deadLinks("package/docs/api.md", text, names)).toEqual(["package/docs/api.md: ../b.md"]);
});
