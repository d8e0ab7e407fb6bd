/** Parts that streams are put together from. */

export const done = "data: [DONE]\n\n";

export function raw(data: string): string {
  return `data: ${data}\n\n`;
}

export function event(value: object): string {
  return raw(JSON.stringify(value));
}

export function named(name: string, value: object): string {
  return `event: ${name}\n${event(value)}`;
}

/** As vLLM's completions write it. */
export function text(content: string): string {
  const choice = { index: 0, text: content, logprobs: null, finish_reason: null };
  return event({
    id: "cmpl-1",
    object: "text_completion",
    model: "m",
    choices: [choice],
    usage: null,
  });
}

export function chat(delta: object): string {
  const choice = { index: 0, delta, logprobs: null, finish_reason: null };
  return event({ id: "chatcmpl-1", object: "chat.completion.chunk", choices: [choice] });
}

export function role(content: string | null): string {
  return chat({ role: "assistant", content });
}

export function stop(reason: string): string {
  return event({ choices: [{ index: 0, text: "", delta: {}, finish_reason: reason }] });
}

export function usage(prompt: number, completion: number): string {
  return event({
    choices: [],
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
    },
  });
}

/** An event of the responses format, whose name is also in its data. */
export function responses(type: string, fields: object): string {
  return named(`response.${type}`, { type: `response.${type}`, ...fields });
}

/** An event of the messages format. */
export function message(type: string, fields: object): string {
  return named(type, { type, ...fields });
}

export function counts(prompt: number, completion: number): object {
  return { prompt_tokens: prompt, completion_tokens: completion };
}

/** The same by the names of the responses and messages formats. */
export function io(input: number, output: number): object {
  return { input_tokens: input, output_tokens: output };
}

export function call(index: number, fields: object): string {
  return chat({ tool_calls: [{ index, function: fields }] });
}

/** How an answer of two tokens ends. */
export const tail: string = stop("length") + usage(7, 2) + done;

/** An answer of two tokens, piece by piece. */
export const tokens: readonly string[] = [text(" one"), text(" two"), tail];
