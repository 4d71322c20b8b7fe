import axe from "axe-core";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { lab } from "./lab";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];
const WIDTHS = { desk: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
const THEMES = ["light", "dark"] as const;

/** How long a page may take to show what has happened. */
export const PATIENCE = { timeout: 20_000, interval: 100 };

/** The screen of a story: opened before its tests, kept as a picture when one fails, closed at the end. */
export function useScreen(): Screen {
  let screen: Screen | undefined;
  beforeAll(async () => {
    screen = await Screen.open();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") await screen?.keep("failed");
  });
  afterAll(async () => {
    await screen?.close();
  });
  return new Proxy({} as Screen, {
    get: (_, key) => {
      const value: unknown = screen && Reflect.get(screen, key);
      return typeof value === "function" ? value.bind(screen) : value;
    },
  });
}

/** Debian's Chromium with a fresh profile; remembers what it asked of whom, and what the page complained about. */
export class Screen {
  /** Requests to other places than the daemon. */
  readonly outside: string[] = [];
  /** Errors on the page's console. */
  readonly complaints: string[] = [];

  private constructor(
    readonly page: Page,
    private readonly context: BrowserContext,
    private readonly profile: string,
  ) {}

  static async open(): Promise<Screen> {
    const profile = mkdtempSync(join(tmpdir(), "lanrage-ui-"));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: "/usr/bin/chromium",
      args: FLAGS,
      viewport: WIDTHS.desk,
      colorScheme: "light",
      reducedMotion: "reduce",
      permissions: ["clipboard-read", "clipboard-write"],
    });
    const screen = new Screen(context.pages()[0] ?? (await context.newPage()), context, profile);
    screen.page.setDefaultTimeout(20_000);
    screen.#watch();
    return screen;
  }

  async close(): Promise<void> {
    await this.context.close();
    rmSync(this.profile, { recursive: true, force: true });
  }

  #watch(): void {
    this.context.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (!["data:", "blob:", "about:"].includes(protocol) && host !== "127.0.0.1:8666") this.outside.push(request.url());
    });
    this.page.on("pageerror", (error) => this.complaints.push(String(error)));
    this.page.on("console", (message) => {
      // A refused request is shown on the page; Chromium says it once more.
      const isRefusal = message.text().includes("the server responded with a status of 4");
      if (message.type() === "error" && !isRefusal) this.complaints.push(message.text());
    });
  }

  /** A picture of what is shown now. */
  async keep(name: string): Promise<void> {
    await this.page.screenshot({ path: join(lab.shots, `${name}.png`), fullPage: true });
  }

  /** Waits for a heading. */
  heading(name: string): Promise<void> {
    return this.page.getByRole("heading", { name, exact: true }).waitFor();
  }

  /** Goes to a page by the navigation. */
  async go(name: string, heading: string): Promise<void> {
    await this.page.getByRole("navigation").getByRole("link", { name }).click();
    await this.page.getByRole("heading", { level: 1, name: heading }).waitFor();
  }

  /** What the focused element is called. */
  focused(): Promise<string> {
    return this.page.evaluate(() => {
      const element = document.activeElement as HTMLInputElement | null;
      const own = element?.matches("a, button, summary") ? element.textContent : "";
      return [element?.ariaLabel, element?.labels?.[0]?.textContent, own].find(Boolean) ?? "";
    });
  }

  /** Presses Tab until the focus is there. */
  async tabTo(name: string): Promise<void> {
    for (let presses = 0; presses < 30; presses += 1) {
      if ((await this.focused()).includes(name)) return;
      await this.page.keyboard.press("Tab");
    }
    throw new Error(`Tab does not reach "${name}"`);
  }

  /** Presses Tab until the focus has been everywhere; what does not show that it has the focus, or cannot be seen. */
  async tabThrough(): Promise<string[]> {
    await this.page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
    const poor: string[] = [];
    for (let presses = 0; presses < 200; presses += 1) {
      await this.page.keyboard.press("Tab");
      const found = await this.page.evaluate(() => {
        const element = document.activeElement;
        if (!element || element === document.body || (element as HTMLElement).dataset.seen) return undefined;
        (element as HTMLElement).dataset.seen = "1";
        const { outlineStyle, outlineWidth } = getComputedStyle(element);
        const { width, height } = element.getBoundingClientRect();
        const isShown = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && width > 0 && height > 0;
        return isShown ? "" : element.outerHTML.slice(0, 200);
      });
      if (found === undefined) break;
      if (found) poor.push(found);
    }
    await this.page.evaluate(() => document.querySelectorAll<HTMLElement>("[data-seen]").forEach((element) => delete element.dataset.seen));
    return poor;
  }

  /** Looks at what is shown in every width and theme: a picture each, nothing to scroll sideways, nothing that axe finds. */
  async look(name: string): Promise<void> {
    for (const [width, size] of Object.entries(WIDTHS)) {
      await this.page.setViewportSize(size);
      for (const theme of THEMES) {
        await this.page.emulateMedia({ colorScheme: theme });
        await this.keep(`${name}-${width}-${theme}`);
        expect(await this.#violations(), `${name}, ${width}, ${theme}`).toEqual([]);
      }
      const overflow = await this.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(overflow, `${name} is wider than a ${width}`).toBeLessThanOrEqual(0);
    }
    await this.page.setViewportSize(WIDTHS.desk);
    await this.page.emulateMedia({ colorScheme: "light" });
  }

  async #violations(): Promise<string[]> {
    // Evaluated by the debugger, so the page's own policy against foreign scripts stays as it is.
    if (await this.page.evaluate(() => !("axe" in window))) await this.page.evaluate(axe.source);
    return this.page.evaluate(async () => {
      const { passes, violations } = await (window as unknown as { axe: typeof axe }).axe.run();
      if (passes.length < 10) return ["axe looked at next to nothing"];
      return violations.flatMap((found) => found.nodes.map((node) => `${found.id}: ${node.html} ${node.failureSummary ?? ""}`));
    });
  }
}
