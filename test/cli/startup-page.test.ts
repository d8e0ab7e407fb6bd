/** The report of starts: figures, bars that add up, and nothing of a command that is a key. */

import { expect, test } from "vitest";
import { startupDocument } from "../../src/cli/startup-document.ts";
import { startupPage } from "../../src/cli/startup-page.ts";
import { segments } from "../../src/startup/attribute.ts";
import type { Span } from "../../src/startup/spans.ts";
import { startResult } from "../../src/startup/start.ts";

const VARIANTS = [
  {
    name: "stock",
    command: ["vllm", "serve", "M", "--api-key", "very-secret"],
    prepare: "HF_TOKEN=very-secret hf download M",
  },
  {
    name: "forked",
    command: ["/bin/sh", "-c", "exec lazygraph run -- vllm serve M --api-key=very-secret"],
    prepare: "true",
  },
];

function start(variant: string, run: number, seconds: number, simulated = false) {
  const spans: Span[] = [
    { name: "imports", begin: 100, end: 100 + seconds / 2, pid: 1, detail: {} },
    {
      name: "<weights>",
      begin: 100 + seconds / 2,
      end: 99 + seconds,
      pid: 2,
      detail: { simulated },
    },
  ];
  const times = { readySeconds: seconds, firstTokenSeconds: seconds + 0.5 };
  return startResult(variant, run, times, segments(spans, 100, 100 + seconds), spans);
}

function page(results: ReturnType<typeof start>[], failures = 0): string {
  const failure = { variant: "forked", run: 9, code: undefined, error: "it <died>" };
  const outcome = {
    results,
    failures: Array(failures).fill(failure),
    left: failures,
    stopped: false,
  };
  return startupPage(startupDocument(VARIANTS, outcome), "today");
}

test("variants side by side, with intervals from three starts on", () => {
  const stock = [40, 41, 42].map((seconds, at) => start("stock", at + 1, seconds));
  const html = page([...stock, start("forked", 1, 8)]);
  expect(html).toContain("Where 4 starts go");
  expect(html).toMatch(/>stock<\/th><td>3<\/td><td>41\.00 \(4\d\.\d\d–4\d\.\d\d\)<\/td>/);
  // 8.5 of 41.5 s, and one start has no interval.
  expect(html).toMatch(/>forked<\/th><td>1<\/td><td>8\.00<\/td><td>8\.50<\/td><td>0\.20<\/td>/);
  expect(html).toContain("forked, start 1");
});

test("a start's bars cover it from the spawn to ready", () => {
  const html = page([start("stock", 1, 40)]);
  const own = html.split('aria-label="stock, start 1"><h2>')[1]?.split("</section>")[0] ?? "";
  const widths = [...own.matchAll(/ width="([\d.]+)" height="10"/g)].map(([, width]) =>
    Number(width),
  );
  expect(widths).toEqual([500, 475, 25]);
});

test("what is wrong with the figures comes first; names are text, keys are left out", () => {
  const html = page([start("stock", 1, 40, true)], 1);
  expect(html).toContain('<p class="caution">Simulated engines: no figures of a GPU.</p>');
  expect(html).toContain('<p class="caution">forked, start 9 failed: it &lt;died&gt;</p>');
  expect(html).toContain("1 start left out");
  expect(html).toContain("&lt;weights&gt;");
  expect(html).not.toContain("<weights>");
  expect(html).not.toContain("very-secret");
  const document = startupDocument(VARIANTS, {
    results: [],
    failures: [],
    left: 0,
    stopped: false,
  });
  expect(JSON.stringify(document)).not.toContain("very-secret");
  expect(document.variants[1]).toMatchObject({ name: "forked", prepare: "true" });
});

test("without any start there is still a page that says why", () => {
  expect(page([], 1)).toContain("forked, start 9 failed");
});
