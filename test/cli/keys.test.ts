import { execFileSync } from "node:child_process";
import {
  chmod,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { parse } from "yaml";
import { curveKeyPair } from "zeromq";
import { followClients } from "../../src/cli/key-clients.ts";
import { keyPair, readPair, rotatePair } from "../../src/cli/key-folder.ts";
import { connectController } from "../../src/replica/client.ts";
import { startSimulatedEngine } from "../../src/testing.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish, lazygraph } from "./helpers/command.ts";

const KEY = /^[0-9a-zA-Z.\-:+=^!/*?&<>()[\]{}@%$#]{40}\n/;

async function read(folder: string, file: string): Promise<string> {
  return (await readFile(join(folder, file), "utf8")).trim();
}

async function rights(folder: string, file: string): Promise<number> {
  return (await stat(join(folder, file))).mode & 0o777;
}

async function pair(...options: string[]): Promise<{ folder: string; publicKey: string }> {
  const folder = join(await temporaryFolder(), "keys");
  const { code, stdout, stderr } = await finish(["keys", "new", folder, ...options]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return { folder, publicKey: stdout.trim() };
}

describe("lazygraph keys", () => {
  test("new: a pair whose secret is its owner's alone, never overwritten", async () => {
    const { folder, publicKey } = await pair();
    expect(`${publicKey}\n`).toMatch(KEY);
    expect(await read(folder, "public.key")).toBe(publicKey);
    expect([await rights(folder, "secret.key"), await rights(folder, ".")]).toEqual([0o600, 0o700]);
    const secret = await read(folder, "secret.key");
    const again = await finish(["keys", "new", folder]);
    expect(again).toMatchObject({ code: 2, stdout: "" });
    expect(again.stderr).toMatch(/got keys that are there already: .*rotate.*_OPTION\]\n$/);
    expect(await read(folder, "secret.key")).toBe(secret);
  });

  test("new: all files or none, so that the next try finds nothing in its way", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "public.key"), "another's\n");
    const { code, stderr } = await finish(["keys", "new", folder]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/got keys that are there already/);
    expect(await readdir(folder)).toEqual(["public.key"]);
    const file = join(folder, "public.key");
    expect((await finish(["keys", "new", file])).stderr).toMatch(/can be written, got ENOTDIR\./);
  });

  test.skipIf(process.platform !== "linux")("new: a folder that can't be is no hang", async () => {
    const { code, stderr } = await finish(["keys", "new", "/proc/keys-of-nobody"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/can be written, got ENOENT\./);
  });

  test("a key that would be an option on the command line is made anew", async () => {
    const made = ["-first", "-second", "third", "fourth"].map((publicKey) => {
      return { publicKey, secretKey: "s" };
    });
    expect(keyPair(() => made.shift() ?? { publicKey: "none", secretKey: "s" }).publicKey).toBe(
      "third",
    );
    const { folder } = await pair();
    const elsewhere = `-${"a".repeat(39)}`;
    // Its path looks like a key, too.
    const file = join(folder, "e".repeat(Math.max(1, 39 - folder.length)));
    await writeFile(file, elsewhere);
    const allowed = await finish(["keys", "allow", folder, file, "--json"]);
    expect(JSON.parse(allowed.stdout)).toEqual({ folder, clients: [{ key: elsewhere, name: "" }] });
    const engine = await finish(["keys", "new", `${folder}-engine`, `--server=${elsewhere}`]);
    expect(engine.code).toBe(0);
  });

  // Of other programs: one in 85.
  test.for([`-${"a".repeat(39)}`, `--${"a".repeat(38)}`, `--as${"a".repeat(36)}`])(
    "allow takes a key that begins with a dash: %s",
    async (key) => {
      const { folder } = await pair();
      const allowed = await finish(["keys", "allow", folder, key, "--name", "x", "--json"]);
      expect(JSON.parse(allowed.stdout)).toEqual({ folder, clients: [{ key, name: "x" }] });
      const removed = await finish(["keys", "allow", folder, "--remove", key]);
      expect(removed).toMatchObject({ code: 0, stdout: "0 keys are allowed.\n" });
      const other = await finish(["keys", "allow", folder, key.slice(1)]);
      expect(other).toMatchObject({ code: 2, stdout: "" });
    },
  );

  test("show and allow: names, replacing, removing, as text and JSON", async () => {
    const { folder, publicKey } = await pair();
    const engine = await pair("--server", join(folder, "public.key"));
    expect(await read(engine.folder, "server.key")).toBe(publicKey);
    const file = join(engine.folder, "public.key");
    for (const name of ["first", "engine 0"]) {
      const allowed = await finish(["keys", "allow", folder, file, "--name", name]);
      expect(allowed).toMatchObject({ code: 0, stdout: "1 key is allowed.\n" });
    }
    const swapped = await finish(["keys", "allow", engine.folder, join(folder, "public.key")]);
    expect(swapped.stderr).toContain("which is an engine's: it has server.key.");
    const its = await finish(["run", "--keys", engine.folder, "--", "true"]);
    expect(its.stderr).toContain("Expected --keys to be a controller's folder");
    const bare = { LAZYGRAPH_ENGINE_KEYS: folder };
    const lone = await finish(["simulated-engine", "--endpoint", "tcp://127.0.0.1:1"], bare);
    expect(lone.stderr).toContain(
      "without server.key: copy the controller's public.key there as server.key.",
    );
    const shown = await finish(["keys", "show", folder]);
    expect(shown.stdout).toBe(`public   ${publicKey}\nallowed  ${engine.publicKey}  engine 0\n`);
    const own = await finish(["keys", "show", engine.folder]);
    expect(own.stdout).toBe(`public   ${engine.publicKey}\nserver   ${publicKey}\n`);
    const removed = await finish(["keys", "allow", folder, engine.publicKey, "--remove", "--json"]);
    expect(JSON.parse(removed.stdout)).toEqual({ folder, clients: [], removed: true });
    expect(shown.stdout).not.toContain(await read(folder, "secret.key"));
  });

  test("allow at once from many sides: no key is lost", async () => {
    const { folder } = await pair();
    const keys = Array.from({ length: 6 }, () => curveKeyPair().publicKey);
    const files = keys.map((key, index) => [join(folder, `${index}.key`), key] as const);
    for (const [file, key] of files) await writeFile(file, key);
    const all = await Promise.all(files.map(([file]) => finish(["keys", "allow", folder, file])));
    expect(all.map(({ code, stderr }) => [code, stderr])).toEqual(keys.map(() => [0, ""]));
    const listed = (await readFile(join(folder, "clients.keys"), "utf8")).trim().split("\n");
    expect(listed.sort()).toEqual(keys.sort());
  });

  test.for([
    ["after a while", -60_000],
    ["once the clock has gone back", 60_000],
  ] as const)("a list that a killed process was changing is free again %s", async ([, ms]) => {
    const { folder } = await pair();
    const part = join(folder, "clients.keys.new");
    await writeFile(part, "half");
    const at = new Date(Date.now() + ms);
    await utimes(part, at, at);
    const engine = join(folder, "engine.key");
    await writeFile(engine, curveKeyPair().publicKey);
    expect(await finish(["keys", "allow", folder, engine])).toMatchObject({ code: 0, stderr: "" });
    await expect(stat(part)).rejects.toThrow("ENOENT");
  });

  test("a secret key is nobody's public one, and a key that isn't there isn't removed", async () => {
    const [{ folder }, { folder: engine }] = [await pair(), await pair()];
    const secret = join(engine, "secret.key");
    const fresh = join(await temporaryFolder(), "engine");
    for (const words of [
      ["allow", folder, secret],
      ["new", fresh, "--server", secret],
    ]) {
      const { code, stderr } = await finish(["keys", ...words]);
      expect(code).toBe(2);
      expect(stderr).toContain(`got a file of a secret one: give "${engine}/public.key".`);
    }
    await expect(stat(join(folder, "clients.keys"))).rejects.toThrow("ENOENT");
    const copied = join(await temporaryFolder(), "key");
    await writeFile(copied, await read(folder, "secret.key"));
    const own = await finish(["keys", "allow", folder, copied]);
    expect(own.stderr).toContain("got the controller's own");
    const words = ["keys", "allow", folder, join(engine, "public.key"), "--remove"];
    expect((await finish(words)).stdout).toBe("0 keys are allowed; this one wasn't before.\n");
    const json = JSON.parse((await finish([...words, "--json"])).stdout);
    expect(json).toEqual({ folder, clients: [], removed: false });
  });

  test("allow --engine: names given to a key stay until others are, and are in the file", async () => {
    const { folder } = await pair();
    const { publicKey } = keyPair();
    const allow = ["keys", "allow", folder, publicKey, "--json"];
    const client = { key: publicKey, name: "the first", engines: ["a", "llama-*"] };
    const given = await finish([
      ...allow,
      "--name",
      "the first",
      "--engine",
      "a",
      "--engine",
      "llama-*",
    ]);
    expect(JSON.parse(given.stdout)).toEqual({ folder, clients: [client] });
    const renamed = await finish([...allow, "--name", "b"]);
    expect(JSON.parse(renamed.stdout)).toEqual({ folder, clients: [{ ...client, name: "b" }] });
    expect(await read(folder, "clients.keys")).toBe(`${publicKey} engine=a engine=llama-* b`);
    const shown = await finish(["keys", "show", folder]);
    expect(shown.stdout).toContain(`allowed  ${publicKey}  b\n  as     a\n  as     llama-*\n`);
    const other = await finish([...allow, "--engine", "c"]);
    expect(JSON.parse(other.stdout)).toMatchObject({ clients: [{ name: "b", engines: ["c"] }] });
    const inside = await finish([...allow, "--engine", "llama-*-0"]);
    expect(inside).toMatchObject({ code: 2, stderr: expect.stringContaining("* only at the end") });
  });

  test("rotate: a new pair with the same rights, the old one beside it", async () => {
    const { folder, publicKey } = await pair();
    const secret = await read(folder, "secret.key");
    const { code, stdout } = await finish(["keys", "rotate", folder]);
    expect(code).toBe(0);
    expect(stdout.split("\n")[0]).toBe(await read(folder, "public.key"));
    expect(await read(folder, "public.key")).not.toBe(publicKey);
    expect(await read(folder, "secret.key.old")).toBe(secret);
    expect(await rights(folder, "secret.key")).toBe(0o600);
    expect(await rights(folder, "secret.key.old")).toBe(0o600);
    expect((await readdir(folder)).filter((name) => /\.(new|lock)$/.test(name))).toEqual([]);
  });

  test.for([1, 2, 3])("rotated as far as %i renames, it has the old pair again", async (count) => {
    const { folder, publicKey } = await pair();
    const others = await pair();
    const file = (name: string) => join(folder, name);
    for (const name of ["secret.key", "public.key"]) {
      await rename(join(others.folder, name), file(`${name}.new`));
    }
    const renames = ["secret.key", "public.key"].flatMap((name) => [
      [name, `${name}.old`],
      [`${name}.new`, name],
    ]);
    for (const [from = "", to = ""] of renames.slice(0, count)) await rename(file(from), file(to));
    const { stdout, stderr } = await finish(["keys", "show", folder]);
    expect(stdout).toBe(`public   ${publicKey}\n`);
    expect(stderr).toMatch(/^lazygraph: a rotation of .* was cut short: [^\n]*\.\n$/);
    expect(await finish(["keys", "rotate", folder])).toMatchObject({ code: 0, stderr: "" });
  });

  test("rotated by several at once it has a pair still, and all old ones", async () => {
    const { folder, publicKey } = await pair();
    const turns = await Promise.all([1, 2, 3, 4].map(() => rotatePair(folder)));
    const { publicKey: last } = await readPair("FOLDER", folder);
    const before = turns.map((turn) => turn.before);
    const after = turns.map((turn) => turn.after);
    expect([...before, last].sort()).toEqual([publicKey, ...after].sort());
    const old = ["", ".1", ".2", ".3"].map((n) => read(folder, `public.key.old${n}`));
    expect((await Promise.all(old)).sort()).toEqual(before.sort());
  });

  test.for([
    [["keys"], "ACTION is new, show, allow, rotate or export, got 0 arguments"],
    [["keys", "frob"], 'Expected ACTION to be new, show, allow, rotate or export, got "frob"'],
    [["keys", "make", "x"], "Expected ACTION to be new, show, allow, rotate or export"],
    [
      ["keys", "show", "/nowhere"],
      'Expected FOLDER to be a folder with secret.key and public.key, got "/nowhere", which isn\'t',
    ],
    [["keys", "show", "/dev/null"], 'got "/dev/null", which is no folder: name another one, or'],
    [
      ["keys", "new", "/nowhere/x", "--server", "abc"],
      "Expected --server to be a Z85 key of 40 characters or a file with one, got 3 characters, and",
    ],
    [["keys", "show", "x", "--name", "y"], "Expected no --name with keys show."],
    [["keys", "allow", "x"], "Expected a KEY after FOLDER"],
    [["keys", "new", "x", "y"], 'Expected no KEY after FOLDER for keys new, got "y".'],
    [["keys", "new", "x", "--server", "/dev/null"], "a regular file"],
    [["keys", "export", "x"], "Expected --as to be env or secret, got nothing."],
    [["keys", "rotate", "x", "--engine", "y"], "Expected no --engine with keys rotate."],
  ] as const)("%j is one sentence", async ([argv, sentence]) => {
    const { code, stdout, stderr } = await finish(argv);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: [^\n]*\[ERR_LAZYGRAPH_OPTION\]\n$/);
  });
});

describe("serve --keys", () => {
  const args = ["serve", "--http", "127.0.0.1:0", "--no-plan", "--json", "--quiet"];

  test("takes whom `allow` names, while it runs; a broken list changes nothing", async () => {
    const { folder, publicKey: serverKey } = await pair();
    const running = lazygraph([...args, "--endpoint", "tcp://0.0.0.0:0", "--keys", folder]);
    const line = JSON.parse(await running.line("stdout", /^\{/)) as {
      endpoint: string;
      http: string;
    };
    const endpoint = line.endpoint.replace("0.0.0.0", "127.0.0.1");
    const engineKeys = curveKeyPair();
    const curve = { ...engineKeys, serverKey };
    const engine = await startSimulatedEngine({ endpoint, curve, engine: "e", speed: 50 });
    onTestFinished(() => engine.close().then(() => undefined));
    await running.line("stderr", /whose public keys are allowed.*\[?ERR_LAZYGRAPH_KEYS\]?/);
    await finish(["keys", "allow", folder, engineKeys.publicKey]);
    const seen = connectController(line.http);
    onTestFinished(() => seen.close());
    await seen.waitForEngine({ engine: "e" });
    await writeFile(join(folder, "clients.keys"), "no key\n");
    const other = curveKeyPair();
    const late = await startSimulatedEngine({
      endpoint,
      curve: { ...other, serverKey },
      engine: "late",
    });
    onTestFinished(() => late.close().then(() => undefined));
    await running.line("stderr", /line 1 of .*clients\.keys.* The list stays as it was\. \[/);
  });

  test("a list that goes bad before the first engine comes leaves the one of the start", async () => {
    const folder = await temporaryFolder();
    await chmod(folder, 0o755);
    const [file, part] = [join(folder, "clients.keys"), join(folder, "part")];
    const [first, second] = [curveKeyPair().publicKey, curveKeyPair().publicKey];
    await writeFile(file, first);
    const told: string[] = [];
    const list = followClients("--keys", folder, (sentence) => told.push(sentence));
    const now = vi.spyOn(performance, "now");
    onTestFinished(() => now.mockRestore());
    const keysAt = (ms: number) => {
      now.mockReturnValue(ms);
      return list().map(({ key }) => key);
    };
    await writeFile(part, second);
    await chmod(part, 0);
    await rename(part, file);
    // Root reads all.
    if (process.getuid?.() === 0) process.seteuid?.(65_534);
    try {
      expect([keysAt(0), keysAt(5000)]).toEqual([[first], [first]]);
    } finally {
      if (process.getuid?.() === 0) process.seteuid?.(0);
    }
    expect(told).toEqual([expect.stringMatching(/EACCES.* The list stays as it was\.$/)]);
    await chmod(file, 0o644);
    expect(keysAt(10_000)).toEqual([second]);
    await rm(file);
    await symlink("clients.keys", file);
    expect(keysAt(15_000)).toEqual([second]);
    expect(told[1]).toMatch(/ELOOP.* The list stays as it was\.$/);
  });

  test.for([
    ["others may read the secret", "secret.key", undefined, 0o644, "with mode 0644"],
    ["the secret is none", "secret.key", "short", 0o600, "got 5 characters"],
    ["the secret is another's", "secret.key", curveKeyPair().secretKey, 0o600, "got another one's"],
    ["the list is none", "clients.keys", "x\n", 0o644, "Expected line 1 of"],
    ["a name in it is none", "clients.keys", `${"a".repeat(40)} engine=\n`, 0o644, "engine=NAME"],
  ] as const)("%s: it doesn't start", async ([, file, text, mode, sentence]) => {
    const { folder } = await pair();
    if (text !== undefined) await writeFile(join(folder, file), text);
    await chmod(join(folder, file), mode);
    const { code, stdout, stderr } = await finish([...args, "--keys", folder]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: [^\n]*\[ERR_LAZYGRAPH_OPTION\]\n$/);
  });
});

describe("lazygraph keys export", () => {
  async function folderWith(files: Readonly<Record<string, string>>): Promise<string> {
    const folder = await temporaryFolder();
    for (const [name, text] of Object.entries(files)) {
      await writeFile(join(folder, name), `${text}\n`, { mode: 0o600 });
    }
    return folder;
  }
  /** A pair whose keys have what shells and env files take for theirs. */
  function nastyPair(): ReturnType<typeof curveKeyPair> {
    for (;;) {
      const pair = curveKeyPair();
      // Unquoted, an env file's line ends at `#`.
      const isNasty = (key: string) => ["$", "#"].every((sign) => key.includes(sign));
      if (isNasty(pair.publicKey) && isNasty(pair.secretKey)) return pair;
    }
  }
  const [server, client, other] = [nastyPair(), nastyPair(), nastyPair()];
  const token = "a-token-of-some-length";
  const wanted = {
    LAZYGRAPH_SERVER_KEY: server.publicKey,
    LAZYGRAPH_SERVER_SECRET_KEY: server.secretKey,
    LAZYGRAPH_CLIENT_KEYS: `${client.publicKey},${other.publicKey}`,
    LAZYGRAPH_HTTP_TOKEN: token,
    LAZYGRAPH_PUBLIC_KEY: client.publicKey,
    LAZYGRAPH_SECRET_KEY: client.secretKey,
  };
  const pairFiles = ({ publicKey, secretKey }: ReturnType<typeof curveKeyPair>) => {
    return { "public.key": publicKey, "secret.key": secretKey };
  };
  const both = async (): Promise<[string, string]> => [
    await folderWith({
      ...pairFiles(server),
      "clients.keys": `${client.publicKey} one\n${other.publicKey}`,
    }),
    await folderWith({ ...pairFiles(client), "server.key": server.publicKey }),
  ];

  test("what shells and env files read is what the folders have, whatever is in the keys", async () => {
    const folders = await both();
    const environment = { LAZYGRAPH_HTTP_TOKEN: token };
    const { code, stdout } = await finish(
      ["keys", "export", ...folders, "--as", "env"],
      environment,
    );
    expect([code, stdout.split("\n").length]).toEqual([0, 7]);
    for (const [name, value] of Object.entries(wanted)) {
      const script = `${stdout}printf %s "$${name}"`;
      expect(execFileSync("sh", ["-c", script], { encoding: "utf8" })).toBe(value);
      expect(parseEnv(stdout)[name]).toBe(value);
    }
    // Unquoted it would be another text.
    const bare = stdout.replaceAll("'", "");
    expect(parseEnv(bare)["LAZYGRAPH_CLIENT_KEYS"]).not.toBe(wanted.LAZYGRAPH_CLIENT_KEYS);
  });

  test("as a Secret, with all that stands for the folders", async () => {
    const { stdout } = await finish(["keys", "export", ...(await both()), "--as", "secret"]);
    const { kind, metadata, data } = parse(stdout);
    expect({ kind, metadata }).toEqual({ kind: "Secret", metadata: { name: "lazygraph-keys" } });
    const { LAZYGRAPH_HTTP_TOKEN: made, ...values } = Object.fromEntries(
      Object.entries(data).map(([name, text]) => [
        name,
        Buffer.from(`${text}`, "base64").toString(),
      ]),
    );
    const { LAZYGRAPH_HTTP_TOKEN: _, ...keys } = wanted;
    expect(values).toEqual(keys);
    expect(made).toMatch(/^[0-9a-f]{64}$/);
  });

  test("folders of two controllers, or names that no variable holds, are refused", async () => {
    const [controller] = await both();
    const stranger = await folderWith({ ...pairFiles(client), "server.key": other.publicKey });
    const apart = await finish(["keys", "export", controller, stranger, "--as", "env"]);
    expect(apart).toMatchObject({ code: 2, stdout: "" });
    expect(apart.stderr).toContain("got another LAZYGRAPH_SERVER_KEY in");
    await writeFile(join(controller, "clients.keys"), `${client.publicKey} engine=a\n`);
    const named = await finish(["keys", "export", controller, "--as", "secret"]);
    expect(named).toMatchObject({ code: 2, stdout: "" });
    expect(named.stderr).toContain("which no variable holds");
  });

  test("a controller that lets nobody in doesn't become one that lets everybody in", async () => {
    const [controller, engine] = await both();
    await rm(join(controller, "clients.keys"));
    const none = await finish(["keys", "export", controller, engine, "--as", "env"]);
    expect(none).toMatchObject({ code: 2, stdout: "" });
    expect(none.stderr).toContain("Expected engines that are allowed in");
  });
});
