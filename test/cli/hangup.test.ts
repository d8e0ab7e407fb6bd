import { expect, test } from "vitest";
import { isHangupIgnored, type ProcessFacts } from "../../src/cli/hangup.ts";

const PLAIN: ProcessFacts = {
  startedAs: "/usr/bin/node",
  parentStatus: "Name:\tbash\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n",
  stdinInfo: "pos:\t0\nflags:\t0100002\nmnt_id:\t26\n",
};

test.for<[string, Partial<ProcessFacts>, boolean]>([
  ["plain", {}, false],
  ["no /proc or shell", { startedAs: undefined, parentStatus: "", stdinInfo: "" }, false],
  ["its parent ignores it", { parentStatus: "SigIgn:\t0000000000001001\n" }, true],
  ["its parent catches it", { parentStatus: "SigCgt:\t0000000000000001\n" }, false],
  ["nohup itself", { startedAs: "/usr/bin/nohup" }, true],
  ["another's name", { startedAs: "/opt/nohup/bin/node" }, false],
  ["stdin /dev/null", { stdinInfo: "flags:\t0100000\n" }, false],
  ["nohup's stdin", { stdinInfo: "flags:\t0100001\n" }, true],
])("%s", ([, facts, ignored]) => {
  expect(isHangupIgnored({ ...PLAIN, ...facts })).toBe(ignored);
});
