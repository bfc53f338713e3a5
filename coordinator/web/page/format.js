// Numbers, times and names as people read them.

export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(Number(value))) return "–";
  const x = Number(value);
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-3) return x.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
  return Number(x.toPrecision(digits)).toLocaleString("en-US", {maximumFractionDigits: 6});
}

// 12.3k, 4.56M
export function count(value) {
  if (value === null || value === undefined || Number.isNaN(Number(value))) return "–";
  const x = Number(value);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(x) >= limit) return Number((x / limit).toPrecision(3)) + unit;
  }
  return String(Number(x.toPrecision(3)));
}

export function bytes(value) {
  let x = Number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (Math.abs(x) < 1024 || unit === "TiB") return Number(x.toPrecision(3)) + " " + unit;
    x /= 1024;
  }
}

export function duration(seconds) {
  if (!(seconds >= 0)) return "–";
  const s = Math.floor(seconds);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

export function secondsSince(time) {
  return time ? Math.max(0, (Date.now() - Date.parse(time)) / 1000) : NaN;
}

export function secondsBetween(begin, end) {
  if (!begin) return NaN;
  return Math.max(0, ((end ? Date.parse(end) : Date.now()) - Date.parse(begin)) / 1000);
}

export function when(time) {
  if (!time) return "–";
  const date = new Date(time);
  const day = date.toDateString() === new Date().toDateString() ? {} : {month: "short", day: "numeric"};
  return date.toLocaleString(undefined, {...day, hour: "2-digit", minute: "2-digit", second: "2-digit"});
}

// "JOB_STATE_RUNNING" -> "Running"
export function words(name) {
  const bare = String(name || "").replace(/^(JOB_STATE|ATTEMPT_STATE|WORKER_STATE|SLOT_STATE|SLOT_TYPE|CODE|FAILURE_CLASS|STOP_REASON)_/, "");
  return bare.charAt(0) + bare.slice(1).toLowerCase().replaceAll("_", " ");
}

export function short(name) {
  return String(name || "").replace(/^[A-Z]+_(STATE|TYPE)_/, "");
}

export const TERMINAL = new Set(["JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"]);
export const WAITING = new Set(["JOB_STATE_QUEUED", "JOB_STATE_SUSPENDED", "JOB_STATE_RECOVERING"]);
