import { Daemon, Refused } from "./api";
import { PathHistory } from "./history";
import type { Status } from "./types";

/** Where the page stands with the daemon. */
export type Connection = "connecting" | "live" | "lost" | "locked";

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 5000;

/** The daemon's state, kept current: one event stream that is opened again whenever it ends. */
export class Live {
  status = $state.raw<Status | undefined>();
  connection = $state<Connection>("connecting");
  /** How often the daemon was found: what was asked of it before may have changed since. */
  sessions = $state(0);
  /** Grows with every sample, so that sparklines redraw. */
  ticks = $state(0);
  readonly history = new PathHistory();
  readonly daemon: Daemon;
  #stop = new AbortController();

  constructor(
    token: string | undefined,
    private readonly onLocked: () => void,
  ) {
    this.daemon = new Daemon(token ?? "");
    if (token === undefined) this.connection = "locked";
    else void this.#run();
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Shows an answer at once instead of waiting for its event. */
  show = (status: Status): void => {
    this.status = status;
    if (this.connection !== "live") this.sessions += 1;
    this.connection = "live";
    if (this.history.record(status.party?.members ?? [], performance.now())) this.ticks += 1;
  };

  async #run(): Promise<void> {
    let wait = RETRY_FIRST_MS;
    while (!this.#stop.signal.aborted) {
      try {
        await this.daemon.events((status) => {
          wait = RETRY_FIRST_MS;
          this.show(status);
        }, this.#stop.signal);
      } catch (error) {
        if (error instanceof Refused && (error.status === 401 || error.status === 403)) return this.#lock();
      }
      if (this.#stop.signal.aborted) return;
      this.connection = "lost";
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(RETRY_MAX_MS, wait * 1.6);
    }
  }

  #lock(): void {
    this.connection = "locked";
    this.onLocked();
  }
}
