import { expect, test } from "vitest";
import { vllmCommand } from "../../src/cli/vllm-command.ts";

const API = "vllm.entrypoints.openai.api_server";
const SERVE = ["serve", "MODEL", "-tp", "2"];

test.each([
  ["vllm", ["vllm", ...SERVE], { file: "vllm", words: SERVE }],
  ["its path", ["/opt/venv/bin/vllm", ...SERVE], { file: "/opt/venv/bin/vllm", words: SERVE }],
  ["a script of a Python", ["python", "/x/vllm", ...SERVE], { file: "python", words: SERVE }],
  [
    "the API server's module",
    ["python3.12", "-m", API, "--model", "M"],
    { file: "python3.12", words: ["--model", "M"] },
  ],
  [
    "the API server's module with nothing but defaults",
    ["python3", "-m", API],
    { file: "python3", words: [] },
  ],
  [
    "the module of its command line",
    ["python3", "-m", "vllm.entrypoints.cli.main", ...SERVE],
    { file: "python3", words: SERVE },
  ],
  [
    "Python's own options",
    ["python3", "-uB", "-X", "dev", "-m", API, "-X", "y"],
    { file: "python3", pythonOptions: ["-uB", "-X", "dev"], words: ["-X", "y"] },
  ],
  [
    "its module in the word of -m",
    ["python3", "-Xdev", `-m${API}`, "-m", "y"],
    { file: "python3", pythonOptions: ["-Xdev"], words: ["-m", "y"] },
  ],
  [
    "-m in the word of other options",
    ["python3", "-sPm", "vllm.scripts", ...SERVE],
    { file: "python3", pythonOptions: ["-sP"], words: SERVE },
  ],
  [
    "variables before it",
    ["env", "A=1", "B=x=y", "vllm", ...SERVE, "C=3"],
    { file: "vllm", words: [...SERVE, "C=3"], variables: { A: "1", B: "x=y" } },
  ],
] as const)("a server by %s", (_, command, expected) => {
  expect(vllmCommand(command)).toEqual({ pythonOptions: [], variables: {}, ...expected });
});

test.each([
  [["docker", "run", "vllm/vllm-openai"]],
  [["vllm", "bench", "serve"]],
  [["vllm"]],
  [["python3", "server.py"]],
  [["python3", "-m", "http.server"]],
  [["python3", "-mhttp.server"]],
  [["python3", "-m"]],
  [["python3", "-c", "import vllm"]],
  [["env", "-i", "vllm", "serve", "MODEL"]],
  [["env"]],
  [["sh", "-c", "vllm serve MODEL"]],
])("%j is none", (command) => {
  expect(() => vllmCommand(command)).toThrow(
    expect.objectContaining({
      code: "ERR_LAZYGRAPH_COMMAND_NOT_VLLM",
      message: expect.stringContaining(JSON.stringify(command.slice(0, 3).join(" "))),
    }),
  );
});
