/** Numbers as people read them. Every function is pure; units are in the names. */

/** Milliseconds with as many decimals as matter: `0.4`, `9.8`, `42`. */
export function milliseconds(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "–";
  return value < 10 ? value.toFixed(1) : Math.round(value).toString();
}

/** A share from 0 to 1 as percent; what is not zero never reads as zero. */
export function percent(share: number | undefined): string {
  if (share === undefined || !Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1 %";
  return `${value < 10 && value % 1 >= 0.05 ? value.toFixed(1) : Math.round(value)} %`;
}

/** How a quality from 0 to 100 is called, as the command line does (`lanrage-common/src/score.rs`). */
export function grade(quality: number): "good" | "fair" | "poor" {
  if (quality >= 80) return "good";
  return quality >= 50 ? "fair" : "poor";
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes in binary units. */
export function bytes(count: number): string {
  let unit = 0;
  while (count >= 1024 && unit < BYTE_UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** A rate with the prefix that fits: `0`, `512`, `12.3 k`, `1.95 M`. */
export function rate(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return count(value);
}

/** A count with thin spaces between thousands. */
export function count(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** Seconds as the largest one or two units: `45 s`, `3 min`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return pair(hours, "h", minutes % 60, "min");
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

function pair(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
}

/** `host_not_found` as `host not found`: stable names made readable. */
export function words(name: string): string {
  return name.replaceAll("_", " ").replaceAll("-", " ");
}

/** The part of an address that differs between members of a subnet: `.2` in a /24 or /16 with few members, else `.1.2`. */
export function shortAddress(address: string, of: string[]): string {
  const parts = address.split(".");
  const last = `.${parts[3] ?? address}`;
  const third = new Set(of.map((other) => other.split(".")[2]));
  return third.size > 1 ? `.${parts[2]}${last}` : last;
}

/** A picture as text, as an address for `<img>`; scripts inside it cannot run there. */
export function svgAddress(svg: string): string {
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
}
