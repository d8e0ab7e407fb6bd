import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parser } from "@prometheus-io/lezer-promql";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { LABEL_VALUES, METRICS, type MetricDefinition } from "../../src/metrics/catalogue.ts";

const catalogue = new Map<string, MetricDefinition>(Object.entries(METRICS));

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
}

// The naming rules of prometheus.io/docs/practices/naming, as `promtool check metrics` has them.
describe("names keep to Prometheus' conventions", () => {
  test.for([...catalogue])("%s", ([name, { type, help, labels, buckets }]) => {
    expect(name).toMatch(/^lazygraph_[a-z]+(_[a-z]+)*$/);
    expect(name.endsWith("_total"), "only counters end in _total").toBe(type === "counter");
    expect(name, "suffixes of histograms are Prometheus' own").not.toMatch(/_(sum|count|bucket)$/);
    expect(name, "base units").not.toMatch(/_(ms|milliseconds|minutes|mib|kib|gib|percent)(_|$)/);
    expect(name, "the type is no part of it").not.toMatch(/_(gauge|counter|histogram)(_|$)/);
    expect(help).toMatch(/^[A-Z1].*\.$/);
    for (const label of labels) {
      expect(label).toMatch(/^[a-z]+(_[a-z]+)*$/);
      expect(name.split("_"), "a label is no part of the name").not.toContain(`by_${label}`);
    }
    expect(labels).toContain("engine");
    if (type === "histogram") {
      expect(name).toMatch(/_(seconds|bytes)$/);
      expect(buckets).toEqual([...(buckets ?? [])].sort((a, b) => a - b));
    }
  });
});

test("docs/metrics.md lists exactly the metrics there are, and their labels", () => {
  const page = read("docs/metrics.md");
  const rows = [...page.matchAll(/^\| `(lazygraph_\w+)` \| (\w+) \| (.*?) \| (.*) \|$/gm)];
  expect(rows.map(([, name, type, labels, help]) => ({ name, type, labels, help }))).toEqual(
    [...catalogue].map(([name, { type, help, labels }]) => ({
      name,
      type,
      labels: labels.map((label) => `\`${label}\``).join(", "),
      help,
    })),
  );
  for (const [label, values] of Object.entries(LABEL_VALUES)) {
    const list = values.map((value) => `\`${value}\``).join(", ");
    expect(page).toContain(`| \`${label}\` | ${list} |`);
  }
});

type SyntaxNode = ReturnType<typeof parser.parse>["topNode"];

interface Selector {
  readonly name: string;
  readonly matchers: readonly { label: string; operator: string; value: string }[];
}

/** The series that a PromQL expression reads; throws where it can't be parsed. */
function selectors(expression: string): { series: Selector[]; labels: string[] } {
  const text = ({ from, to }: { from: number; to: number }) => expression.slice(from, to);
  const series: Selector[] = [];
  const labels: string[] = [];
  parser.parse(expression).iterate({
    enter({ node }) {
      if (node.type.isError) throw new SyntaxError(`${expression} at ${node.from}`);
      if (node.name === "VectorSelector") series.push(selectorOf(node, text));
      if (node.name === "GroupingLabels") {
        labels.push(
          ...text(node)
            .replace(/[()\s]/g, "")
            .split(",")
            .filter(Boolean),
        );
      }
    },
  });
  return { series, labels };
}

function selectorOf(node: SyntaxNode, text: (node: SyntaxNode) => string): Selector {
  const name = node.getChild("Identifier");
  const matchers = node.getChild("LabelMatchers")?.getChildren("UnquotedLabelMatcher") ?? [];
  return {
    name: name === null ? "" : text(name),
    matchers: matchers.map((matcher) => {
      const [, label = "", operator = "", value = ""] =
        /^(\w+)\s*(=~|!~|!=|=)\s*"(.*)"$/.exec(text(matcher)) ?? [];
      return { label, operator, value };
    }),
  };
}

// The checker is a CommonJS module, and its document must come from the same copy of CodeMirror.
const require = createRequire(import.meta.url);
const { ensureSyntaxTree, LanguageSupport } = require("@codemirror/language");
const { EditorState } = require("@codemirror/state");
const { promQLLanguage } = require("@prometheus-io/codemirror-promql");
const { Parser } = require("@prometheus-io/codemirror-promql/dist/cjs/parser/parser.js");
const PROMQL = [new LanguageSupport(promQLLanguage("PromQL"))];

/**
 * What Prometheus' own editor says of types: a rate of an instant vector and the like. An editor
 * begins with what it can parse in 20 ms and 3,000 characters, and the checker finds faults at the
 * edge of that, so the whole expression is parsed before the checker sees it.
 */
function typeFaults(expression: string): string[] {
  const state = EditorState.create({ doc: expression, extensions: PROMQL });
  const tree = ensureSyntaxTree(state, expression.length, Number.POSITIVE_INFINITY);
  if (tree === null) throw new Error(`${expression} was not parsed to its end`);
  // A state keeps the tree it was created with; the next one takes the finished tree.
  const checker = new Parser(state.update({}).state);
  checker.analyze();
  const diagnostics: readonly { message: string }[] = checker.getDiagnostics();
  return diagnostics.map(({ message }) => message);
}

/** Why an expression would show nothing, if it would. */
function faultsOf(expression: string): string[] {
  // Grafana fills these in.
  const plain = expression.replaceAll("$__rate_interval", "5m").replaceAll("$engine", ".*");
  const { series, labels } = selectors(plain);
  if (series.length === 0) return [`${plain} reads no metric`];
  const known = new Set(["le"]);
  const faults = typeFaults(plain);
  for (const { name, matchers } of series) {
    const base = catalogue.has(name) ? name : name.replace(/_(bucket|sum|count)$/, "");
    const metric = catalogue.get(base);
    if (metric === undefined || (base !== name) !== (metric.type === "histogram")) {
      faults.push(`there is no ${name}`);
      continue;
    }
    for (const label of metric.labels) known.add(label);
    for (const { label, operator, value } of matchers) {
      if (!metric.labels.includes(label)) faults.push(`${name} has no label ${label}`);
      const values = LABEL_VALUES[label];
      if (operator === "=" && values !== undefined && !values.includes(value)) {
        faults.push(`${label} is never ${value}`);
      }
    }
  }
  for (const label of labels) if (!known.has(label)) faults.push(`nothing has the label ${label}`);
  return faults;
}

test("the check of expressions finds what is wrong", () => {
  const wrong = [
    "sum by (",
    "1 + 1",
    "lazygraph_nothing",
    "rate(lazygraph_capture_stall_seconds[5m])",
    'lazygraph_graphs{color="red"}',
    'lazygraph_graphs{status="broken"}',
    "sum by (color) (lazygraph_graphs)",
    "rate(lazygraph_steps_total)",
    "histogram_quantile(lazygraph_graphs, 0.9)",
  ];
  const found = wrong.map((expression) => {
    try {
      return faultsOf(expression)[0];
    } catch (error) {
      return error instanceof SyntaxError ? "syntax" : "?";
    }
  });
  expect(found).toEqual([
    "syntax",
    "1 + 1 reads no metric",
    "there is no lazygraph_nothing",
    "there is no lazygraph_capture_stall_seconds",
    "lazygraph_graphs has no label color",
    "status is never broken",
    "nothing has the label color",
    'expected type matrix in call to function "rate", got vector',
    'expected type scalar in call to function "histogram_quantile", got vector',
  ]);
});

test("an expression is checked to its end, however long its parsing takes", () => {
  const terms = Array.from({ length: 200 }, () => "sum(rate(lazygraph_steps_total[15m]))");
  expect(faultsOf(terms.join(" + "))).toEqual([]);
  expect(faultsOf([...terms, "rate(lazygraph_steps_total)"].join(" + "))).toEqual([
    'expected type matrix in call to function "rate", got vector',
  ]);
});

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}

describe("monitoring/alerts.yaml", () => {
  const { groups } = parse(read("monitoring/alerts.yaml")) as { groups: { rules: Rule[] }[] };
  const rules = groups.flatMap((group) => group.rules);

  test.for(rules.map((rule) => [rule.alert, rule] as const))("%s", ([, rule]) => {
    expect(faultsOf(rule.expr)).toEqual([]);
    expect(rule.alert).toMatch(/^Lazygraph[A-Z][A-Za-z]+$/);
    expect(rule.for ?? "1m").toMatch(/^\d+[mh]$/);
    expect(["info", "warning", "critical"]).toContain(rule.labels.severity);
    expect(rule.annotations.summary).toMatch(/\S/);
    expect(rule.annotations.description).toMatch(/\.$/);
  });

  test("graphs that the user excluded are none that memory lacks; who is stock or sleeps fills none", () => {
    const of = (name: string) => rules.find(({ alert }) => alert === `Lazygraph${name}`)?.expr;
    expect(of("GraphsRefused")).not.toContain("refused");
    expect(of("NeverSettles")).toMatch(
      /phase="serving"} == 1\s+unless on \(engine\) \w+_asleep == 1/,
    );
  });

  test("docs/metrics.md explains each", () => {
    const listed = [...read("docs/metrics.md").matchAll(/^\| `(Lazygraph\w+)` \|/gm)];
    expect(listed.map(([, name]) => name)).toEqual(rules.map(({ alert }) => alert));
  });
});

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly description?: string;
  readonly targets?: readonly { readonly expr: string }[];
}

describe("monitoring/dashboard.json", () => {
  const { panels, uid } = JSON.parse(read("monitoring/dashboard.json")) as {
    panels: (Panel & { id: number })[];
    uid: string;
  };
  const drawn = panels.filter(({ type }) => type !== "row");

  test.for(drawn.map((panel) => [panel.title, panel] as const))("%s", ([, panel]) => {
    expect(panel.description).toMatch(/\.$/);
    expect(panel.targets?.length).toBeGreaterThan(0);
    for (const { expr } of panel.targets ?? []) expect(faultsOf(expr)).toEqual([]);
  });

  test("panels have numbers of their own, and nearly every metric is on one", () => {
    expect(uid).toBe("lazygraph");
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const text = JSON.stringify(drawn);
    const missing = [...catalogue.keys()].filter((name) => !text.includes(name));
    expect(missing).toEqual([
      // A variable of the dashboard takes its values from it.
      "lazygraph_engine_info",
      "lazygraph_engine_frozen",
      "lazygraph_engine_asleep",
      "lazygraph_engine_capturing",
      "lazygraph_graphs_dropped_total",
      "lazygraph_capture_size_bytes",
      "lazygraph_replays_total",
    ]);
  });
});
