// Drawing, at most once a frame however often it is asked for.

const waiting = new Set();
let asked = false;

/** Run a job in the next frame. The same function is run once, however often it is given. */
export function inNextFrame(job) {
  waiting.add(job);
  if (asked) return;
  asked = true;
  // A page in the background has no frames, but its figures must be right when it returns.
  if (document.hidden) setTimeout(run, 500);
  else requestAnimationFrame(run);
}

function run() {
  asked = false;
  const jobs = [...waiting];
  waiting.clear();
  for (const job of jobs) job();
}

/** A function that runs at most every so many milliseconds, and always once more at the end. */
export function atMostEvery(ms, job) {
  let timer = null;
  let last = -Infinity;
  const go = () => {
    timer = null;
    last = performance.now();
    inNextFrame(job);
  };
  const throttled = () => {
    timer ??= setTimeout(go, Math.max(0, last + ms - performance.now()));
  };
  throttled.cancel = () => clearTimeout(timer);
  return throttled;
}
