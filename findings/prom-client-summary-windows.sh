#!/bin/sh
# For its first `maxAgeSeconds` a Summary of prom-client has quantiles of other values than it was given:
# its windows (`ageBuckets`, five) begin as one digest, which takes every value five times; when the first
# window ends, four times, and so on. Of 10 first tokens after 1 s, then 30 after 0.1 s, the median is 1 s.
# So it is for each set of labels anew.
# Seen with prom-client 15.1.3: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit prom-client@15.1.3 >>npm.log 2>&1

cat >summary.mjs <<'JS'
import { setTimeout as sleep } from "node:timers/promises";
import { Summary } from "prom-client";
const options = { help: "s", percentiles: [0.5], ageBuckets: 5 };
const summaries = [
  new Summary({ ...options, name: "all" }),
  new Summary({ ...options, name: "aged", maxAgeSeconds: 5 }),
];
function observe(seconds, times) {
  for (const summary of summaries) {
    for (let time = 0; time < times; time++) summary.observe(seconds + time / 1000);
  }
}
observe(1, 10);
await sleep(4200);
observe(0.1, 30);
for (const summary of summaries) {
  const { name, values } = await summary.get();
  const [median, , count] = values.map(({ value }) => value);
  console.log(`${name}: ${count} values, median ${median.toFixed(1)}`);
}
JS
node summary.mjs | tee output
cat >expected <<'TXT'
all: 40 values, median 0.1
aged: 40 values, median 1.0
TXT
cmp expected output
