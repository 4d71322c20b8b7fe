/**
 * The daemon's token arrives in the address's fragment (`#token=…`), which browsers never send. It is kept for this tab
 * and taken out of the address bar, so that it is in no bookmark, history entry or screenshot.
 */
const KEY = "lanrage-token";

/** The token in a fragment such as `#token=abc`, if there is one. */
export function tokenIn(fragment: string): string | undefined {
  return new URLSearchParams(fragment.replace(/^#/, "")).get("token") || undefined;
}

/** Takes the token from the address bar, or the one this tab already has. */
export function takeToken(): string | undefined {
  const fresh = tokenIn(location.hash);
  if (fresh) {
    sessionStorage.setItem(KEY, fresh);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return fresh ?? sessionStorage.getItem(KEY) ?? undefined;
}

/** Forgets a token that the daemon refused. */
export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}
