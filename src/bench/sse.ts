/** Server-sent events, as far as OpenAI-compatible servers use them: the `data` of each event. */

/** An event larger than this is no token. */
const EVENT_CHARS_MAX = 1 << 20;

export class SseParser {
  #line = "";
  #data: string[] = [];
  #chars = 0;

  /**
   * Takes the next piece of the body and returns the events that it completes.
   *
   * @throws RangeError for an event of more than 1,048,576 characters
   */
  push(text: string): string[] {
    const events: string[] = [];
    const lines = (this.#line + text).split("\n");
    this.#line = lines.pop() ?? "";
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this.#data.length > 0) events.push(this.#data.join("\n"));
        this.#data = [];
        this.#chars = 0;
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
        this.#chars += line.length;
      }
      // Other fields and comments, often used as pings, say nothing about tokens.
    }
    if (this.#chars + this.#line.length > EVENT_CHARS_MAX) {
      throw new RangeError(`An event of the stream has over ${EVENT_CHARS_MAX} characters.`);
    }
    return events;
  }
}
