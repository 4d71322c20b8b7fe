//! Where a command prints, and how much decoration that place can take.

use super::failure::Failure;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

/// Standard output and error, or a test's buffers.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    terminal: bool,
    color: bool,
    closed: bool,
}

impl std::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("terminal", &self.terminal).field("color", &self.color).finish()
    }
}

/// How a text stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl<'a> Screen<'a> {
    /// Plain text.
    pub fn plain(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, terminal: false, color: false, closed: false }
    }

    /// Decorated when standard output is a terminal; colours also need `NO_COLOR` unset.
    pub fn detect(out: &'a mut io::Stdout, err: &'a mut io::Stderr) -> Self {
        let terminal = out.is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, err, terminal, color, closed: false }
    }

    /// A terminal without colours.
    #[cfg(test)]
    pub(super) fn terminal(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, terminal: true, color: false, closed: false }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns that text is wrapped at.
    pub(super) fn width(&self) -> usize {
        80
    }

    /// Prints a line. A closed pipe is the reader's wish to hear no more.
    pub(super) fn line(&mut self, text: impl Display) {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        self.closed |= written.is_err();
    }

    /// Makes place for the same thing as it is now: on a terminal in place of the last, in a pipe behind an empty line.
    pub(super) fn begin_again(&mut self) {
        let (text, end) = if self.terminal { ("\x1b[H\x1b[2J", "") } else { ("", "\n") };
        let written = write!(self.out, "{text}{end}").and_then(|()| self.out.flush());
        self.closed |= written.is_err();
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Plain => return text.into(),
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    pub(super) fn fail(&mut self, failure: &Failure, json: bool) {
        if json {
            self.line(failure.to_json());
        }
        let (what, fix) = failure.lines();
        let _ = writeln!(self.err, "lanrage: {what}");
        if let Some(fix) = fix {
            let _ = writeln!(self.err, "  {fix}");
        }
    }
}
