#!/bin/sh
# After a fork, OpenTelemetry's providers for Python have a `service.instance.id` of the child's
# own, a random one, in place of what OTEL_RESOURCE_ATTRIBUTES or the program itself had said; the
# rest of the resource is as it was. A provider made in the child has the given one, but a second
# global one is refused. So of a server that sets up tracing and then forks its engine, as vLLM's
# does by VLLM_WORKER_MULTIPROC_METHOD=fork, a query for the given id finds the server and not the
# engine.
# Seen with opentelemetry-sdk 1.45.2; 1.43.0 keeps what was given: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
cat >forked.py <<'PY'
import logging
import os

os.environ["OTEL_RESOURCE_ATTRIBUTES"] = "service.instance.id=pod-7,k8s.pod.name=pod-7"

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

logging.disable()  # a second global provider is refused by a warning
trace.set_tracer_provider(TracerProvider())
explicit = TracerProvider(resource=Resource({"service.instance.id": "pod-7"}))


def kept(attributes):
    return "kept" if attributes["service.instance.id"] == "pod-7" else "another"


def told(title):
    span = trace.get_tracer("example").start_span("work")
    attributes = span.resource.attributes
    print(f"{title}: from the environment", kept(attributes), end=", ")
    print(attributes["k8s.pod.name"], end="; ")
    print("from the program", kept(explicit.resource.attributes), end="; ")
    print("a new provider's", kept(TracerProvider().resource.attributes), flush=True)


told("parent")
if os.fork() == 0:
    trace.set_tracer_provider(TracerProvider())
    told("child")
    os._exit(0)
os.wait()
told("parent")
PY
for version in 1.43.0 1.45.2; do
  python/bin/pip install -q "opentelemetry-sdk==$version"
  echo "SDK $version"
  python/bin/python forked.py
done | tee output
cat >expected <<'TXT'
SDK 1.43.0
parent: from the environment kept, pod-7; from the program kept; a new provider's kept
child: from the environment kept, pod-7; from the program kept; a new provider's kept
parent: from the environment kept, pod-7; from the program kept; a new provider's kept
SDK 1.45.2
parent: from the environment kept, pod-7; from the program kept; a new provider's kept
child: from the environment another, pod-7; from the program another; a new provider's kept
parent: from the environment kept, pod-7; from the program kept; a new provider's kept
TXT
cmp expected output
