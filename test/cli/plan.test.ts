import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runPlan } from "../../src/cli/plan.ts";
import { formatPlan, parsePlan } from "../../src/plan/check.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { FINGERPRINT, planOf, traffic } from "../plan/helpers.ts";
import { finish } from "./helpers/command.ts";

async function fileOf(plan = planOf(), name = "plan.json"): Promise<string> {
  const file = join(await temporaryFolder(), name);
  await writeFile(file, formatPlan(plan));
  return file;
}

describe("lazygraph plan show", () => {
  test("one plan as tables, and as JSON that is the plan", async () => {
    const file = await fileOf(planOf({ simulated: "tiny" }));
    const shown = await finish(["plan", "show", file]);
    expect(shown).toMatchObject({ code: 0, stderr: "" });
    expect(shown.stdout).toContain("fake/model (simulated: tiny)");
    expect(shown.stdout).toMatch(/│ first +│ FULL:1 /);
    expect(shown.stdout).toMatch(/│ 8 +│ decode │ 4000 +│ 80\.00% │ 10\.00/);
    const { code, stdout } = await finish(["plan", "show", file, "--json"]);
    expect(code).toBe(0);
    expect(parsePlan(stdout)).toEqual(planOf({ simulated: "tiny" }));
  });

  test("a folder, a bad file among its plans, which is told and left where it is", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "a.json"), formatPlan(planOf()));
    await writeFile(join(folder, "b.json"), "{");
    await writeFile(
      join(folder, "c.json"),
      formatPlan(planOf()).replace(/(lazygraphPlan": )\d/, "$19"),
    );
    const { code, stdout, stderr } = await finish(["plan", "show", folder, "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      folder,
      plans: [{ file: join(folder, "a.json"), starts: 1, fingerprint: FINGERPRINT }],
    });
    expect(stderr).toMatch(
      /b\.json: expected JSON, got text that is none\. \[ERR_LAZYGRAPH_PLAN\]/,
    );
    expect(stderr).toMatch(/c\.json: .*got 9, of a newer version of this package: .*_PLAN\]/);
    expect(await readFile(join(folder, "b.json"), "utf8")).toBe("{");
  });

  test("a folder whose only plan is damaged can't be shown", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "b.json"), "{");
    const { code, stdout, stderr } = await finish(["plan", "show", folder]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("[ERR_LAZYGRAPH_PLAN]");
  });

  test("the default folder, which need not be there", async () => {
    const folder = join(await temporaryFolder(), "none");
    const { code, stdout } = await finish(["plan", "show"], { LAZYGRAPH_PLAN_DIR: folder });
    expect({ code, stdout }).toEqual({ code: 0, stdout: `No plans in ${folder}.\n` });
  });
});

describe("lazygraph plan merge", () => {
  test("adds plans of one fingerprint up", async () => {
    const files = [await fileOf(), await fileOf(planOf({ starts: 4 }))];
    const output = join(await temporaryFolder(), "merged.json");
    const merged = await finish(["plan", "merge", ...files, "--output", output]);
    expect(merged).toMatchObject({ code: 0, stdout: "", stderr: "" });
    const plan = parsePlan(await readFile(output, "utf8"));
    expect(plan).toMatchObject({ starts: 5, traffic: [{ requestSteps: 2000 }, {}] });
    const { stdout } = await finish(["plan", "merge", ...files, "--output", "-"]);
    expect(parsePlan(stdout)).toEqual(plan);
  });

  test("refuses to count one plan twice, be it a copy", async () => {
    const [file, copy] = [await fileOf(), await fileOf()];
    const other = await fileOf(planOf({ starts: 4 }));
    const output = join(await temporaryFolder(), "merged.json");
    for (const again of [file, copy]) {
      const files = [file, other, again];
      const { code, stderr } = await finish(["plan", "merge", ...files, "--output", output]);
      expect(code).toBe(2);
      expect(stderr).toBe(
        `lazygraph: Expected each plan once, got the same in ${file} and ${again}: leave one out. ` +
          "[ERR_LAZYGRAPH_PLAN]\n",
      );
    }
    expect(existsSync(output)).toBe(false);
  });

  test("refuses two fingerprints in one sentence", async () => {
    const other = planOf({ fingerprint: { ...FINGERPRINT, gpuName: "Another" } });
    const files = [await fileOf(), await fileOf(other)];
    const { code, stdout, stderr } = await finish(["plan", "merge", ...files, "--output", "-"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      /gpuName is "Fake GPU" in one and "Another" in the other; merge those of .*\. \[ERR_LAZYGRAPH_PLAN\]\n$/,
    );
  });

  test("makes no folder for a mistyped output", async () => {
    const folder = join(await temporaryFolder(), "nope");
    const file = await fileOf();
    const output = join(folder, "x.json");
    const { code, stderr } = await finish(["plan", "merge", file, file, "--output", output]);
    expect(code).toBe(2);
    expect(stderr).toContain("Expected --output to be a file in a folder that can be written");
    expect(existsSync(folder)).toBe(false);
  });

  test("refuses a folder as its output", async () => {
    const folder = join(await temporaryFolder(), "out");
    await mkdir(folder);
    const file = await fileOf();
    const { code, stderr } = await finish(["plan", "merge", file, file, "--output", folder]);
    expect(code).toBe(2);
    expect(stderr).toContain("Expected --output to be a file, not a folder");
  });
});

describe("lazygraph plan suggest", () => {
  test("the flag, what it spares and what it costs", async () => {
    const file = await fileOf(planOf({ traffic: [traffic(1, 1000), traffic(4, 500)] }));
    const { code, stdout } = await finish(["plan", "suggest", file, "--loss", "0"]);
    expect(code).toBe(0);
    const [flag] = stdout.split("\n");
    // All graphs of the helper take 5 ms: one size is enough.
    expect(flag).toBe("--cudagraph-capture-sizes 4");
    expect(stdout).toContain(`--compilation-config '{"cudagraph_capture_sizes":[4]}'`);
    expect(stdout).toContain("1 of 4 sizes, 2 of 8 graphs.");
    expect(stdout).toContain("Spares 0.12 s of captures and 6 MiB.");
    expect(stdout).toContain("Steps of 5 to 8 tokens then run ungraphed: this plan has seen none.");
    const json = await finish(["plan", "suggest", file, "--json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      flag: "--cudagraph-capture-sizes 4",
      sizes: [4],
      captureMsSpared: 120,
      bytesSpared: 6e6,
      model: "fake/model",
    });
  });

  test("of a plan without traffic is one sentence", async () => {
    const file = await fileOf(planOf({ traffic: [] }));
    const { code, stdout, stderr } = await finish(["plan", "suggest", file]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/expected traffic that graphs could serve, got none/);
  });
});

describe("usage errors", () => {
  test.for([
    [["plan"], "Expected the plan command to be show, merge or suggest"],
    [["plan", "shew"], 'show, merge or suggest, got "shew": did you mean show?'],
    [["plan", "show", "a", "b"], "Expected 0 to 1 FILE or FOLDER, got 2"],
    [["plan", "merge", "a", "--output", "x"], "Expected 2 to 256 plan files, got 1"],
    [["plan", "merge", "a", "b"], "Expected --output to be given with a file"],
    [["plan", "suggest"], "Expected 1 plan file, got 0"],
    [["plan", "suggest", "a", "--loss", "2"], "Expected --loss to be a number from 0 to 1"],
    [["plan", "show", "a", "--jsn"], 'got the unknown option "--jsn": did you mean --json?'],
  ] as const)("%j", async ([args, sentence]) => {
    await expect(runPlan(args.slice(1))).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      message: expect.stringContaining(sentence),
    });
  });

  test("a file that isn't there", async () => {
    const { code, stderr } = await finish(["plan", "show", "/nowhere/plan.json"]);
    expect(code).toBe(2);
    expect(stderr).toBe(
      "lazygraph: Plan /nowhere/plan.json: expected a file that can be read, got ENOENT: there is no such file, so check its name. " +
        "[ERR_LAZYGRAPH_PLAN]\n",
    );
  });

  test("--help names every command", async () => {
    const { code, stdout } = await finish(["plan", "--help"]);
    expect(code).toBe(0);
    for (const name of ["show", "merge", "suggest"]) expect(stdout).toContain(`plan ${name}`);
  });
});
