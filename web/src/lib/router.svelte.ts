import { strings } from "./strings";

export const PAGES = ["party", "servers", "discovery", "games", "network", "relay", "settings", "support"] as const;
export type PageName = (typeof PAGES)[number];

/** The page that a fragment such as `#/network` names; the party for anything else. */
export function pageOf(fragment: string): PageName {
  const name = fragment.replace(/^#\/?/, "");
  return PAGES.find((page) => page === name) ?? "party";
}

/** Which page is shown. It is in the address's fragment, so that the browser's own buttons work. */
export class Router {
  page = $state<PageName>(pageOf(location.hash));

  constructor() {
    addEventListener("hashchange", this.#follow);
  }

  stop(): void {
    removeEventListener("hashchange", this.#follow);
  }

  #follow = (): void => {
    this.page = pageOf(location.hash);
    // Who cannot see the change hears it.
    document.getElementById("main")?.focus();
    scrollTo(0, 0);
  };
}

export const address = (page: PageName): string => `#/${page}`;
export const label = (page: PageName): string => strings.pages[page];
