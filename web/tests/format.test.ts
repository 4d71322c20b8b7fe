import { describe, expect, it } from "vitest";
import { bytes, count, duration, grade, milliseconds, percent, shortAddress, svgAddress, words } from "../src/lib/format";
import { linkProblem } from "../src/lib/invite";
import { strings } from "../src/lib/strings";
import { tokenIn } from "../src/lib/token";

describe("format", () => {
  it("shows milliseconds with the decimals that matter", () => {
    expect([0, 0.44, 9.94, 10, 41.5, 1234.4].map(milliseconds)).toEqual(["0.0", "0.4", "9.9", "10", "42", "1234"]);
    expect(milliseconds(undefined)).toBe("–");
    expect(milliseconds(NaN)).toBe("–");
  });

  it("never shows some loss as none", () => {
    expect([0, 0.0004, 0.004, 0.05, 0.125, 1].map(percent)).toEqual(["0 %", "<0.1 %", "0.4 %", "5 %", "13 %", "100 %"]);
    expect(percent(undefined)).toBe("–");
  });

  it("calls qualities by their words", () => {
    expect([100, 80, 79, 50, 49, 0].map(grade)).toEqual(["good", "good", "fair", "fair", "poor", "poor"]);
  });

  it("shows bytes in binary units", () => {
    expect([0, 1023, 1024, 1536, 200 * 1024, 5 * 1024 ** 3].map(bytes)).toEqual([
      "0 B",
      "1023 B",
      "1.0 KiB",
      "1.5 KiB",
      "200 KiB",
      "5.0 GiB",
    ]);
  });

  it("groups thousands", () => {
    expect([0, 999, 1000, 1234567].map(count)).toEqual(["0", "999", "1\u202f000", "1\u202f234\u202f567"]);
  });

  it("shows durations by their largest units", () => {
    expect([-3, 0, 59, 60, 3599, 3600, 7500, 86_400, 97_200, 262_800].map(duration)).toEqual([
      "0 s",
      "0 s",
      "59 s",
      "1 min",
      "59 min",
      "1 h",
      "2 h 5 min",
      "24 h",
      "27 h",
      "3 d 1 h",
    ]);
  });

  it("shortens addresses only as far as they stay distinct", () => {
    expect(shortAddress("10.66.0.2", ["10.66.0.1", "10.66.0.2"])).toBe(".2");
    expect(shortAddress("10.66.1.2", ["10.66.0.2", "10.66.1.2"])).toBe(".1.2");
  });

  it("makes names readable and pictures inert", () => {
    expect(words("rate_limited")).toBe("rate limited");
    const address = svgAddress('<svg onload="x()"># "</svg>');
    expect(address).toMatch(/^data:image\/svg\+xml;charset=utf-8,[^<>"# ]+$/);
  });
});

describe("invite link", () => {
  const code = "AAECAwQFBgcICQoLDA0ODw";
  it("accepts whole links, also with blanks around", () => {
    expect(linkProblem(` https://play.example:8667/j/${code}#abc\n`)).toBeUndefined();
    expect(linkProblem(`http://192.0.2.1:8667/j/${code}#abc`)).toBeUndefined();
  });
  it("says what is missing", () => {
    expect(linkProblem("hello")).toBe(strings.setup.notALink);
    expect(linkProblem(`ftp://h/j/${code}#a`)).toBe(strings.setup.notALink);
    expect(linkProblem(`https://h/k/${code}#a`)).toBe(strings.setup.notALink);
    expect(linkProblem(`https://h/j/${code}`)).toBe(strings.setup.noSecret);
    expect(linkProblem(`https://h/j/${code}#`)).toBe(strings.setup.noSecret);
  });
});

describe("token", () => {
  it("is found in the fragment only under its name", () => {
    expect(tokenIn("#token=a-b_c")).toBe("a-b_c");
    expect(tokenIn("#x=1&token=abc")).toBe("abc");
    expect(tokenIn("#main")).toBeUndefined();
    expect(tokenIn("#token=")).toBeUndefined();
    expect(tokenIn("")).toBeUndefined();
  });
});
