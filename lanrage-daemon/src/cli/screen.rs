//! Where a command prints, and how much decoration that place can take.

use super::failure::Failure;
use super::terminal::Terminal;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

/// Standard output and error, or a test's buffers.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    terminal: bool,
    color: bool,
    columns: Option<usize>,
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
        Self { out, err, terminal: false, color: false, columns: None, closed: false }
    }

    /// Decorated when standard output is a terminal; colours also need `NO_COLOR` unset.
    pub fn detect(out: &'a mut io::Stdout, err: &'a mut io::Stderr) -> Self {
        let terminal = out.is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let columns = terminal.then(|| Terminal::size().0);
        Self { out, err, terminal, color, columns, closed: false }
    }

    /// A terminal without colours.
    #[cfg(test)]
    pub(super) fn terminal(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, terminal: true, color: false, columns: None, closed: false }
    }

    /// A terminal of so many columns.
    #[cfg(test)]
    pub(super) fn colored(out: &'a mut dyn Write, err: &'a mut dyn Write, columns: usize) -> Self {
        Self { out, err, terminal: true, color: true, columns: Some(columns), closed: false }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns of the terminal, where there is one.
    pub(super) fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// Says how far long work is, in place of what it said before; to people only. The next line takes its place.
    pub(super) fn progress(&mut self, text: &str) {
        if self.terminal {
            let width = self.columns.unwrap_or(self.width()).saturating_sub(1);
            let text: String = text.chars().take(width).collect();
            let _ = write!(self.err, "\r{text}\x1b[K").and_then(|()| self.err.flush());
        }
    }

    /// Takes the progress away.
    pub(super) fn end_progress(&mut self) {
        self.progress("");
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
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
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

/// Words in lines of at most `width` characters; a longer word has a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else if let Some(last) = lines.last_mut() {
            last.push_str(if line > 0 { " " } else { "" });
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities a", 5), ["incomprehensibilities", "a"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn progress_is_for_people_and_never_in_the_output() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Screen::plain(&mut out, &mut err).progress(" 50 %");
        assert_eq!((out.len(), err.len()), (0, 0));
        let mut screen = Screen::colored(&mut out, &mut err, 20);
        screen.progress(" 50 % a/very/long/path/to/a/file");
        screen.end_progress();
        assert_eq!(
            (out.len(), String::from_utf8(err).unwrap()),
            (0, "\r 50 % a/very/long/p\x1b[K\r\x1b[K".into())
        );
    }
}
