#!/bin/sh
# OpenTelemetry's propagators of W3C baggage in Python and JavaScript don't read each other. Python
# takes a member's properties, which follow a ";", for part of its value: of "tenant=a;ttl=30" a
# Python service has the tenant "a;ttl=30", and passes the semicolon on encoded, so that JavaScript
# services behind it have it too. And "+", which stands for itself there, is a space to Python, as
# in forms, so that "llama+lora" is another model; so it writes spaces, too, which JavaScript reads
# as "+". What percent signs encode, both read alike.
# Seen with @opentelemetry/core 2.12.1 and opentelemetry-api 1.45.1: the output below, for baggage as a
# client sends it, and as the other passes it on.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit @opentelemetry/api@1.9.1 \
  @opentelemetry/core@2.12.1 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q opentelemetry-api==1.45.1

# Both say what they read, and on stderr what they pass on.
cat >pass.mjs <<'JS'
import * as api from "@opentelemetry/api";
import { W3CBaggagePropagator } from "@opentelemetry/core";
const propagator = new W3CBaggagePropagator();
for (const header of process.argv.slice(2)) {
  const carrier = { baggage: header };
  const got = propagator.extract(api.ROOT_CONTEXT, carrier, api.defaultTextMapGetter);
  for (const [name, { value }] of api.propagation.getBaggage(got).getAllEntries())
    console.log(`js, ${header}: ${name} is "${value}"`);
  propagator.inject(got, carrier, api.defaultTextMapSetter);
  console.error(carrier.baggage);
}
JS
cat >pass.py <<'PY'
import sys

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator

propagator = W3CBaggagePropagator()
for header in sys.argv[1:]:
    carrier = {"baggage": header}
    got = propagator.extract(carrier)
    for name, value in baggage.get_all(got).items():
        print(f'py, {header}: {name} is "{value}"')
    propagator.inject(carrier, got)
    print(carrier["baggage"], file=sys.stderr)
PY
set -- 'tenant=a;ttl=30' 'model=llama+lora' 'team=red%20hot' 'sum=1%2B1'
{
  node pass.mjs "$@" 2>from-js
  python/bin/python pass.py "$@" 2>from-py
  echo "through the other one:"
  node pass.mjs $(cat from-py) 2>again
  python/bin/python pass.py $(cat from-js) 2>again
} | tee output
cat >expected <<'TXT'
js, tenant=a;ttl=30: tenant is "a"
js, model=llama+lora: model is "llama+lora"
js, team=red%20hot: team is "red hot"
js, sum=1%2B1: sum is "1+1"
py, tenant=a;ttl=30: tenant is "a;ttl=30"
py, model=llama+lora: model is "llama lora"
py, team=red%20hot: team is "red hot"
py, sum=1%2B1: sum is "1+1"
through the other one:
js, tenant=a%3Bttl%3D30: tenant is "a;ttl=30"
js, model=llama+lora: model is "llama+lora"
js, team=red+hot: team is "red+hot"
js, sum=1%2B1: sum is "1+1"
py, tenant=a;ttl=30: tenant is "a;ttl=30"
py, model=llama%2Blora: model is "llama+lora"
py, team=red%20hot: team is "red hot"
py, sum=1%2B1: sum is "1+1"
TXT
cmp expected output
