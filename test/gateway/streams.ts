const TOKENS = 60;

/** How each of so many streams will end, once all of them have begun. */
export function begun(url: string, model: string, count: number): Promise<Promise<string>[]> {
  return new Promise((resolve) => {
    let left = count;
    const ends = Array.from({ length: count }, () =>
      read(url, model, () => {
        if (--left === 0) resolve(ends);
      }),
    );
  });
}

/** "whole" once a stream has ended with its last event; what it came to otherwise. */
async function read(url: string, model: string, onFirst: () => void): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, prompt: "x", max_tokens: TOKENS, stream: true }),
  });
  if (response.body === null) return `status ${response.status} without a body`;
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body) {
      if (text === "") onFirst();
      text += decoder.decode(chunk as Uint8Array, { stream: true });
    }
  } catch (error) {
    return `cut off after ${text.length} characters: ${error}`;
  }
  return text.trimEnd().endsWith("data: [DONE]") ? "whole" : `ended with ${text.slice(-80)}`;
}
