/** The images' build steps, run without Docker: the same commands in an empty folder. */

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { temporaryFolder } from "../helpers/folder.ts";
import { packInto, ROOT } from "../package/packed.ts";

const execute = promisify(execFile);
const BUILD_MS_MAX = 300_000;

interface Image {
  readonly steps: readonly (readonly [instruction: string, rest: string])[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
}

async function imageOf(name: string): Promise<Image> {
  const text = await readFile(join(ROOT, "deploy", name), "utf8");
  const steps = text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [instruction = "", ...rest] = line.split(" ");
      return [instruction, rest.join(" ")] as const;
    });
  const list = (wanted: string): string[] => {
    const found = steps.find(([instruction]) => instruction === wanted);
    return found === undefined ? [] : (JSON.parse(found[1]) as string[]);
  };
  return { steps, entrypoint: list("ENTRYPOINT"), command: list("CMD") };
}

/** Does COPY and RUN of an image in a folder, which is returned. */
async function build({ steps }: Image): Promise<string> {
  const [context, folder] = await Promise.all([temporaryFolder(), temporaryFolder()]);
  await packInto(context);
  for (const [instruction, rest] of steps) {
    if (instruction === "COPY") {
      const [from = "", to = ""] = rest.split(" ");
      for (const source of await sourcesOf(from, context)) {
        const into = to === "./" ? join(folder, basename(source)) : join(folder, to);
        await cp(source, into, { recursive: true });
      }
    }
    if (instruction === "RUN") {
      const options = { cwd: folder, timeout: BUILD_MS_MAX };
      // Folders and users of the image are this one's, and whoever runs the test.
      const here = rest.replaceAll(" /plans", ` ${folder}/plans`).replace("chown node", "ls -d");
      await execute("sh", ["-ec", here], options);
    }
  }
  return folder;
}

/** Files of the checkout, and the packed package for its pattern. */
async function sourcesOf(pattern: string, context: string): Promise<readonly string[]> {
  if (pattern !== "lazygraph-*.tgz") return [join(ROOT, pattern)];
  const names = await readdir(context);
  expect(names).toHaveLength(1);
  return names.map((name) => join(context, name));
}

test("serve: built as its Dockerfile says it listens, answers a pod's probe and ends", {
  timeout: BUILD_MS_MAX,
}, async () => {
  const image = await imageOf("serve.Dockerfile");
  const folder = await build(image);
  const { publicKey, secretKey } = curveKeyPair();
  const [program = "", ...args] = image.entrypoint;
  // Its own addresses, on ports that are free here.
  const command = image.command.map((word) => word.replace(/:(5757|7480)$/, ":0"));
  const child = spawn(program, [...args, ...command, "--json"], {
    cwd: folder,
    env: {
      PATH: process.env["PATH"],
      LAZYGRAPH_SERVER_KEY: publicKey,
      LAZYGRAPH_SERVER_SECRET_KEY: secretKey,
      LAZYGRAPH_PLAN_DIR: join(folder, "plans"),
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const line = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  const { http } = JSON.parse(line.value ?? "") as { http: string };
  const url = http.replace("0.0.0.0", "127.0.0.1");
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  const closed = once(child, "close");
  child.kill("SIGTERM");
  expect(await closed).toEqual([0, null]);
});

test("gateway: built as its Dockerfile says it starts with what it is given", {
  timeout: BUILD_MS_MAX,
}, async () => {
  const image = await imageOf("gateway.Dockerfile");
  const folder = await build(image);
  const [program = "", ...args] = image.entrypoint;
  const child = spawn(program, args, {
    cwd: folder,
    env: {
      PATH: process.env["PATH"],
      LISTEN: "127.0.0.1:0",
      ENGINES: "engine-0=http://127.0.0.1:9",
      LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0",
      // As compose files and charts write what is not set.
      HOLD_SECONDS: "",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const line = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  const [url = ""] = /http:\/\/\S+(?=;)/.exec(line.value ?? "") ?? [];
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  expect((await fetch(`${url}/readyz`)).status).toBe(503);
  const closed = once(child, "close");
  child.kill("SIGTERM");
  expect(await closed).toEqual([0, null]);
});
