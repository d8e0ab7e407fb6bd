import { describe, expect, test } from "vitest";
import { parseOptions } from "../../src/cli/options.ts";
import { PLAN_OPTIONS, planOptions, withoutEffect } from "../../src/cli/plan-options.ts";
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

  test("leave something of what is pinned, and are told where a mode makes nothing of them", () => {
    planned("--pin=24,FULL,>256,FULL:8", "--exclude=PIECEWISE,FULL:24,>512,<8");
    expect(() => resolveOptions({ pin: ["<4"], exclude: ["<8"] })).toThrow(
      'Expected pin to name graphs that may be captured, got "<4", and exclude "<8" leaves none',
    );
    const told = (argv: string[]) =>
      (["eager", "lazy", "idle"] as const).map((mode) =>
        Boolean(withoutEffect(parseOptions(argv, PLAN_OPTIONS), mode)),
      );
    expect(told(["--fill-share=0.1"])).toEqual([true, true, false]);
    expect(told(["--init-only"])).toEqual([true, false, false]);
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
    [
      ["--pin=FULL:2,24", "--exclude=24"],
      'to name graphs that may be captured, got "24", and --exclude "24" leaves none of them',
    ],
    [["--pin=FULL:24", "--exclude=>16"], 'got "FULL:24", and --exclude ">16" leaves none'],
    [["--pin=>256", "--exclude=>128"], 'got ">256", and --exclude ">128" leaves none'],
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
