import { describe, expect, test } from "vitest";
import { parseOptions } from "../../src/cli/options.ts";
import { PLAN_OPTIONS, planOptions } from "../../src/cli/plan-options.ts";
import { resolveOptions } from "../../src/controller/options.ts";

function planned(...argv: string[]): ReturnType<typeof planOptions> {
  return planOptions(parseOptions(argv, PLAN_OPTIONS));
}

describe("options of plans and policies", () => {
  test("are the controller's defaults when none is given", () => {
    expect(planned()).toEqual({
      policy: "costed",
      initOnly: false,
      plan: true,
      planReadOnly: false,
    });
  });

  test("reach the controller, which takes them", () => {
    const options = planned(
      "--policy=costed",
      "--init-only",
      "--pin=FULL:24,>256",
      "--exclude=PIECEWISE",
      "--graphs-max=8",
      "--plan-dir=/plans",
      "--plan-read-only",
      "--profile=llama-3.1-8b-h200",
    );
    expect(options).toEqual({
      policy: "costed",
      initOnly: true,
      pin: ["FULL:24", ">256"],
      exclude: ["PIECEWISE"],
      graphsMax: 8,
      plan: true,
      planFolder: "/plans",
      planReadOnly: true,
      profile: "llama-3.1-8b-h200",
    });
    expect(resolveOptions(options).rules).toEqual({
      pin: ["FULL:24", ">256"],
      exclude: ["PIECEWISE"],
      graphsMax: 8,
    });
    expect(planned("--no-plan").plan).toBe(false);
    const filling = planned("--fill-share=0.1");
    expect([filling.fillShare, resolveOptions(filling).policy("idle").name]).toEqual([
      0.1,
      "idle-simple",
    ]);
  });

  test.for([
    [["--policy=clever"], 'Expected --policy to be simple or costed, got "clever".'],
    [
      ["--init-only", "--policy=simple"],
      "Expected --init-only together with --policy costed, got simple.",
    ],
    [["--fill-share=2"], "Expected --fill-share to be a number from 0 to 1"],
    [
      ["--fill-share=0.1", "--policy=costed"],
      "Expected --fill-share together with --policy simple, got costed.",
    ],
    [["--pin=FULL:24,"], "Expected --pin to be graphs with commas"],
    [["--exclude=FULL:24, 8"], "Expected --exclude to be graphs with commas"],
    [["--pin=FULL:-3"], 'a size (24) or sizes (>256, <8), got "FULL:-3".'],
    [
      ["--pin=FULL:24,PIECWISE"],
      'a kind (FULL or PIECEWISE), a size (24) or sizes (>256, <8), got "PIECWISE".',
    ],
    [["--exclude=>abc"], 'got ">abc".'],
    [["--graphs-max=0"], "Expected --graphs-max to be a whole number from 1 to 4096"],
    [["--no-plan", "--plan-dir=x"], "Expected --no-plan or --plan-dir, got both."],
    [["--no-plan", "--plan-read-only"], "Expected --no-plan or --plan-read-only, got both."],
  ] as const)("%j", ([argv, sentence]) => {
    expect(() => planned(...argv)).toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_OPTION",
        message: expect.stringContaining(sentence),
      }),
    );
  });
});
