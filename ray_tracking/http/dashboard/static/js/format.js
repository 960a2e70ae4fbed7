// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const oneDigit = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const NONE = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const count = (value) => (known(value) ? whole.format(Math.round(value)) : NONE);

/** Short enough for an axis. */
export const compact = (value) => (known(value) ? short.format(value) : NONE);

/** A fraction as a percentage; more digits where it would round to nothing. */
export function percent(fraction) {
  if (!known(fraction)) return NONE;
  const value = fraction * 100;
  return `${value > 0 && value < 0.05 ? value.toPrecision(1) : oneDigit.format(value)}%`;
}

export const milliseconds = (value) =>
  !known(value) ? NONE : value < 10 ? `${oneDigit.format(value)} ms` : `${count(value)} ms`;

export const seconds = (ms) => `${oneDigit.format(ms / 1000)} s`;

export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value >= 100 || power === 0 ? count(value) : oneDigit.format(value)} ${units[power]}`;
}

/** A length of time in its two largest units. */
export function duration(s) {
  if (!known(s)) return NONE;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = Math.max(0, parts.findIndex(([, size]) => s >= size));
  const used = s < 1 ? parts.slice(3) : parts.slice(first, first + 2);
  let left = s;
  return used
    .map(([unit, size]) => {
      const n = Math.floor(left / size);
      left -= n * size;
      return `${n} ${unit}`;
    })
    .join(" ");
}

export function ago(time, now = Date.now()) {
  if (!time) return NONE;
  const s = (now - new Date(time).getTime()) / 1000;
  if (s < 5) return "just now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  if (s < 86400 * 14) return `${Math.floor(s / 86400)} days ago`;
  return day(time);
}

const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const shortDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const secondFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const day = (time) => dayFormat.format(new Date(time));
export const minute = (time) => minuteFormat.format(new Date(time));
export const second = (time) => secondFormat.format(new Date(time));
export const dayAndMinute = (time) => `${shortDay.format(new Date(time))}, ${minute(time)}`;
export const date = (time) => shortDay.format(new Date(time));

const regions = new Intl.DisplayNames(["en"], { type: "region" });

/** The name of a country by its code of two letters; another text stays as it is. */
export function country(code) {
  return /^[A-Z]{2}$/.test(code) ? (regions.of(code) ?? code) : code;
}
