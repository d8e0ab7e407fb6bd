#!/bin/sh
# gpt-tokenizer, with which gateways in Node count tokens, sees a special token only where a text begins
# with it. Elsewhere it spells it out, six tokens or so for one, though all are allowed (allowedSpecial:
# "all"). So a chat that it puts into tokens itself for gpt-oss is 14, and the same one as text, as a
# template renders it, 35, and not within a limit of 20. Of two in a row the second is there twice, and
# text after it is lost. Nor is its README's example the tokens told there, 8538,2991,220,100276. And of
# o200k_base, <|endofprompt|> has another id than in OpenAI's own tokenizer.
# Seen with gpt-tokenizer 4.0.0 and tiktoken 1.0.22 (npm's, made from OpenAI's): the output below. In
# 2.9.0, 3.0.0 and 3.4.0 special tokens inside texts are spelled out, too. Takes seconds, and 60 MB.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit gpt-tokenizer@4.0.0 tiktoken@1.0.22 >>npm.log 2>&1

cat >count.mjs <<'JS'
import { EndOfPrompt } from "gpt-tokenizer";
import * as cl100k from "gpt-tokenizer/encoding/cl100k_base";
import * as o200k from "gpt-tokenizer/encoding/o200k_base";
import * as oss from "gpt-tokenizer/model/gpt-oss-120b";
import { get_encoding } from "tiktoken";

const all = { allowedSpecial: "all" };
const chat = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi" },
];
const tokens = oss.encodeChat(chat);
const text = oss.decode(tokens);
console.log(text);
const fits = oss.isWithinTokenLimit(text, 20, all);
console.log("chat:", tokens.length, "its text:", oss.countTokens(text, all), "within 20:", fits);

const openai = get_encoding("o200k_base");
for (const text of ["Hi<|endoftext|>", "<|endoftext|><|endoftext|>Hi", EndOfPrompt]) {
  console.log(text, `${o200k.encode(text, all)}`, `OpenAI: ${openai.encode(text, "all")}`);
}
console.log(`${cl100k.encode(`Some Text ${EndOfPrompt}`, all)}`);
JS
node count.mjs | tee output
cat >expected <<'TXT'
<|start|>system<|message|>Be brief.<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant
chat: 14 its text: 35 within 20: false
Hi<|endoftext|> 12194,27,91,419,1440,919,91,29 OpenAI: 12194,199999
<|endoftext|><|endoftext|>Hi 199999,27,91,419,1440,919,91,29,199999 OpenAI: 199999,199999,12194
<|endofprompt|> 200006 OpenAI: 200018
8538,2991,83739,408,1073,41681,91,29
TXT
cmp expected output
