/** Arrivals that the gateway expects: captures keep out of their way. */

interface Announcement {
  readonly atSeconds: number;
  readonly requests: number;
}

/** Announcements remembered; of more the furthest ones are forgotten. */
const ANNOUNCEMENTS_MAX = 16;
/** An arrival may be late by this much; after it the announcement is forgotten. */
const LATE_SECONDS_MAX = 1;
/** Nobody knows arrivals further ahead than this. */
const AHEAD_SECONDS_MAX = 3600;
const REQUESTS_MAX = 1_000_000;

export class Announced {
  /** By rising time. */
  #announcements: readonly Announcement[] = [];

  /** @param inSeconds from `nowSeconds`; what is no time or no number of requests is left out */
  add(nowSeconds: number, inSeconds: number, requests: number): void {
    if (!(inSeconds >= 0) || inSeconds > AHEAD_SECONDS_MAX || !(requests > 0)) return;
    this.#forget(nowSeconds);
    const announcement = {
      atSeconds: nowSeconds + inSeconds,
      requests: Math.min(REQUESTS_MAX, requests),
    };
    this.#announcements = [...this.#announcements, announcement]
      .sort((a, b) => a.atSeconds - b.atSeconds)
      .slice(0, ANNOUNCEMENTS_MAX);
  }

  /** So many have come: they are expected no more, the earliest announced first. */
  came(nowSeconds: number, requests: number): void {
    this.#forget(nowSeconds);
    let left = requests;
    this.#announcements = this.#announcements.flatMap((announcement) => {
      // Who comes long before somebody was announced is somebody else.
      if (left <= 0 || announcement.atSeconds > nowSeconds + LATE_SECONDS_MAX) return announcement;
      const met = Math.min(left, announcement.requests);
      left -= met;
      return met < announcement.requests
        ? { ...announcement, requests: announcement.requests - met }
        : [];
    });
  }

  /** All of them as from now, for another policy; nothing is remembered after it. */
  take(nowSeconds: number): readonly { readonly inSeconds: number; readonly requests: number }[] {
    this.#forget(nowSeconds);
    const all = this.#announcements;
    this.#announcements = [];
    return all.map(({ atSeconds, requests }) => {
      return { inSeconds: Math.max(0, atSeconds - nowSeconds), requests };
    });
  }

  /** Requests that are expected before a stall from now on would end. */
  during(nowSeconds: number, stallSeconds: number): number {
    this.#forget(nowSeconds);
    let requests = 0;
    for (const announcement of this.#announcements) {
      if (announcement.atSeconds <= nowSeconds + stallSeconds) requests += announcement.requests;
    }
    return requests;
  }

  /** Seconds until none of those that such a stall would reach can come any more. */
  waitSeconds(nowSeconds: number, stallSeconds: number): number {
    let until = nowSeconds;
    for (const { atSeconds } of this.#announcements) {
      if (atSeconds <= until + stallSeconds) until = atSeconds + LATE_SECONDS_MAX;
    }
    return until - nowSeconds;
  }

  #forget(nowSeconds: number): void {
    const [first] = this.#announcements;
    if (first === undefined || nowSeconds <= first.atSeconds + LATE_SECONDS_MAX) return;
    this.#announcements = this.#announcements.filter(
      ({ atSeconds }) => nowSeconds <= atSeconds + LATE_SECONDS_MAX,
    );
  }
}
