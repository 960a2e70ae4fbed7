// Asking again and again, one question at a time, and not while nobody looks.

/**
 * Ask now and then every so many milliseconds until it is stopped. An error makes the
 * next question wait longer, up to ten times as long.
 */
export function repeat(everyMs, ask) {
  let timer = null;
  let failures = 0;
  let stopped = false;
  let busy = false;

  async function turn() {
    clearTimeout(timer);
    if (stopped || busy) return;
    if (document.hidden) {
      timer = setTimeout(turn, everyMs);
      return;
    }
    busy = true;
    try {
      await ask();
      failures = 0;
    } catch {
      failures = Math.min(failures + 1, 9);
    }
    busy = false;
    if (!stopped) timer = setTimeout(turn, everyMs * (1 + failures));
  }

  const look = () => !document.hidden && turn();
  document.addEventListener("visibilitychange", look);
  turn();
  return {
    now: turn,
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
    },
  };
}
