#!/bin/sh
# The type checker of Prometheus' editor finds faults in sound expressions of over 3,000 characters.
# CodeMirror creates a state with what it parses of the first 3,000 in 20 ms, and the rest later;
# the checker takes the half tree for the whole, and a call cut in two for a wrong one. Parsing to
# the end isn't enough, as a state keeps its first tree: the faults go only in the next state, of a
# transaction without changes.
# Seen with @prometheus-io/codemirror-promql 0.314.0 and @codemirror/language 6.13.1 on sums of 165
# to 245 equal terms: most fail, as with `binary expression must contain only scalar and
# instant vector types`. Which fault depends on where the tree ends, so on the machine.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @prometheus-io/codemirror-promql@0.314.0 \
  @codemirror/language@6.13.1 @codemirror/state@6.7.6 @lezer/common@1.5.5 >>npm.log 2>&1

cat >check.cjs <<'JS'
const { ensureSyntaxTree, LanguageSupport } = require("@codemirror/language");
const { EditorState } = require("@codemirror/state");
const { promQLLanguage } = require("@prometheus-io/codemirror-promql");
const { Parser } = require("@prometheus-io/codemirror-promql/dist/cjs/parser/parser.js");

const extensions = [new LanguageSupport(promQLLanguage("PromQL"))];

function faults(state) {
  const checker = new Parser(state);
  checker.analyze();
  return checker.getDiagnostics().map(({ message }) => message);
}

function refused(terms, stage) {
  const doc = Array(terms).fill("sum(rate(x[5m]))").join(" + ");
  let state = EditorState.create({ doc, extensions });
  if (stage !== "created") ensureSyntaxTree(state, doc.length, 60_000);
  if (stage === "the next state") state = state.update({}).state;
  const found = faults(state);
  if (found.length > 0) console.error(`${doc.length} characters, ${stage}: ${found[0]}`);
  return found.length > 0;
}

const lengths = Array.from({ length: 17 }, (_, i) => 165 + 5 * i);
for (const stage of ["created", "parsed to the end", "the next state"]) {
  console.log(`${stage}: ${lengths.some((terms) => refused(terms, stage)) ? "faults" : "none"}`);
}
// The checker does find faults: a rate of an instant vector is one.
console.log(...faults(EditorState.create({ doc: "rate(x)", extensions })));
JS
node check.cjs | tee output
cat >expected <<'TXT'
created: faults
parsed to the end: faults
the next state: none
expected type matrix in call to function "rate", got vector
TXT
cmp expected output
