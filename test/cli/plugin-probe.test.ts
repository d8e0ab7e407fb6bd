import { execFileSync } from "node:child_process";
import { access, chmod, mkdir, realpath, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { probePlugin } from "../../src/cli/plugin-probe.ts";
import { resolvePython } from "../../src/launcher/python-of.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const PYTHON = execFileSync("python3", ["-c", "import sys; print(sys.executable)"], {
  encoding: "utf8",
}).trim();

/** An environment whose only command is `name`, with this text. */
async function folderWith(name: string, text: string): Promise<NodeJS.ProcessEnv> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, name), text);
  await chmod(join(folder, name), 0o755);
  return { PATH: folder };
}

/** The head of a script by uv, whose path the kernel would cut or split. */
function uvs(python: string): string {
  return `#!/bin/sh\n'''exec' ${python} "$0" "$@"\n' '''\n`;
}

/** Installs a package of that entry point where only PYTHONPATH finds it. */
async function sitePackages(group: string, name: string): Promise<string> {
  const folder = await temporaryFolder();
  const info = join(folder, "probe_test-1.0.dist-info");
  await mkdir(info);
  await writeFile(
    join(info, "METADATA"),
    "Metadata-Version: 2.1\nName: probe-test\nVersion: 1.0\n",
  );
  await writeFile(
    join(info, "entry_points.txt"),
    `[${group}]\n${name} = lazygraph_vllm:register\n`,
  );
  return folder;
}

describe("the interpreter behind a command", () => {
  test.for([
    ["a direct shebang", "#!/opt/venv/bin/python3.12\nimport vllm\n", "/opt/venv/bin/python3.12"],
    ["one with an option", "#!/opt/venv/bin/python -E\n", "/opt/venv/bin/python"],
    [
      "pip's trampoline",
      `#!/bin/sh\n'''exec' "/a b/bin/python" "$0" "$@"\n' '''\n`,
      "/a b/bin/python",
    ],
    ["pip's bare trampoline", `#!/bin/sh\n'''exec' /x/python3 "$0" "$@"\n`, "/x/python3"],
    ["uv's trampoline", uvs(`'/a b/bin/python'`), "/a b/bin/python"],
    ["uv's, of a path with a quote", uvs(`'/a'"'"'b/bin/python'`), "/a'b/bin/python"],
  ] as const)("vllm with %s", async ([, text, expected]) => {
    expect(await resolvePython("vllm", await folderWith("vllm", text))).toBe(expected);
  });

  test("vllm of an environment that may be moved finds the Python beside itself", async () => {
    const text = uvs(`"$(dirname -- "$(realpath -- "$0")")"/'python'`);
    const { PATH: own = "" } = await folderWith("vllm", text);
    const python = join(await realpath(own), "python");
    expect(await resolvePython("vllm", { PATH: own })).toBe(python);
    const linked = await temporaryFolder();
    await symlink(join(own, "vllm"), join(linked, "vllm"));
    expect(await resolvePython(join(linked, "vllm"), {})).toBe(python);
  });

  test("vllm through env finds that python on PATH", async () => {
    const { PATH } = await folderWith("vllm", "#!/usr/bin/env python3\n");
    const { PATH: other = "" } = await folderWith("python3", "");
    expect(await resolvePython("vllm", { PATH: `${PATH}:${other}` })).toBe(join(other, "python3"));
  });

  test("a python is its own", async () => {
    const environment = await folderWith("python3.11", "");
    const python = join(environment["PATH"] ?? "", "python3.11");
    expect(await resolvePython("python3.11", environment)).toBe(python);
    expect(await resolvePython(python, {})).toBe(python);
  });

  test.for([
    ["a binary", "\x7fELF\x02\x01"],
    ["an empty file", ""],
    ["a shell script", "#!/bin/sh\nexec docker run vllm/vllm-openai\n"],
    ["what only a shell can tell", uvs(`"$HOME"/python`)],
    ["env with something else", "#!/usr/bin/env -S uv run\n"],
  ] as const)("vllm as %s is unknown", async ([, text]) => {
    expect(await resolvePython("vllm", await folderWith("vllm", text))).toBeUndefined();
  });

  test("a launcher and a command that isn't there are unknown", async () => {
    const environment = await folderWith("docker", "#!/usr/bin/python3\n");
    expect(await resolvePython("docker", environment)).toBeUndefined();
    expect(await resolvePython("vllm", environment)).toBeUndefined();
  });
});

describe("the plugin in that interpreter", () => {
  test("is found by its entry point", async () => {
    const PYTHONPATH = await sitePackages("vllm.general_plugins", "lazygraph");
    expect(await probePlugin([PYTHON], { PYTHONPATH })).toEqual({ found: "yes", python: PYTHON });
  });

  test.for([
    ["vllm.general_plugins", "other"],
    ["vllm.platform_plugins", "lazygraph"],
  ] as const)("is not %s/%s", async ([group, name]) => {
    const PYTHONPATH = await sitePackages(group, name);
    const missing = { found: "no", python: PYTHON, vllm: false };
    expect(await probePlugin([PYTHON], { PYTHONPATH })).toEqual(missing);
    await mkdir(join(PYTHONPATH, "vllm"));
    await writeFile(join(PYTHONPATH, "vllm", "__init__.py"), "raise RuntimeError('imported')");
    expect(await probePlugin([PYTHON], { PYTHONPATH })).toEqual({ ...missing, vllm: true });
  });

  test("is found behind what a site's start-up files print", async () => {
    const environment = await folderWith("python3", "#!/bin/sh\necho hello\necho True True\n");
    expect((await probePlugin(["python3"], environment)).found).toBe("yes");
  });

  test.for(["", "other", "lazygraph_other, x"])("is excluded by VLLM_PLUGINS=%j", async (names) => {
    const probe = await probePlugin([PYTHON], { VLLM_PLUGINS: names });
    expect(probe).toEqual({ found: "excluded", allowed: names });
  });

  test("is allowed by VLLM_PLUGINS that names it", async () => {
    const PYTHONPATH = await sitePackages("vllm.general_plugins", "lazygraph");
    const probe = await probePlugin([PYTHON], { PYTHONPATH, VLLM_PLUGINS: "x, lazygraph" });
    expect(probe.found).toBe("yes");
  });

  test("an interpreter that fails or talks nonsense is unknown", async () => {
    for (const text of ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho maybe\n"]) {
      const environment = await folderWith("python3", text);
      expect((await probePlugin(["python3"], environment)).found).toBe("unknown");
    }
  });
});

describe("a Python that is known to have the plugin", () => {
  test("isn't asked again; another one, or another of its folder, is", async () => {
    const folder = await temporaryFolder();
    // It would say that it has none, and leaves a file where it is asked.
    const asked = join(folder, "asked");
    for (const name of ["python3", "python3.9"]) {
      await writeFile(join(folder, name), `#!/bin/sh\ntouch ${asked}\necho False\n`);
      await chmod(join(folder, name), 0o755);
    }
    await symlink(join(folder, "python3"), join(folder, "python"));
    const probe = (having: string) =>
      probePlugin([join(folder, "python3"), "-m", "vllm"], {}, having);
    const isAsked = () =>
      access(asked).then(
        () => true,
        () => false,
      );
    expect(await probe(join(folder, "python"))).toMatchObject({ found: "yes" });
    expect(await isAsked()).toBe(false);
    expect(await probe(join(folder, "python3.9"))).toMatchObject({ found: "no" });
    expect(await isAsked()).toBe(true);
    expect(await probe("/opt/other/bin/python3")).toMatchObject({ found: "no" });
  });

  test("vLLM's own list of plugins is looked at all the same", async () => {
    const env = { VLLM_PLUGINS: "other" };
    expect(await probePlugin([PYTHON], env, PYTHON)).toEqual({
      found: "excluded",
      allowed: "other",
    });
  });
});
