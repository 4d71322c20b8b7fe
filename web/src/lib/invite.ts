import { strings } from "./strings";

/** What is plainly wrong with a pasted invite link, before the daemon is asked; it has the last word. */
export function linkProblem(text: string): string | undefined {
  const link = text.trim();
  const [address = "", fragment] = [link.split("#", 1)[0], link.includes("#") ? link.slice(link.indexOf("#") + 1) : undefined];
  if (!/^https?:\/\/[^/\s]+\/j\/[\w-]+\/?$/.test(address)) return strings.setup.notALink;
  if (!fragment) return strings.setup.noSecret;
  return undefined;
}
