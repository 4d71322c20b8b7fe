//! Aligned columns.

use super::screen::{Screen, Style, wrap};

/// A last column with less room than this is put below.
const LEAST: usize = 24;
/// In front of what is below.
const BELOW: &str = "  ";

/// Rows of cells; the first row is the heading.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Names come from other people: control characters must not reach the terminal.
    pub(super) fn new(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into().chars().filter(|c| !c.is_control()).collect(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Style::Plain)
    }
}

impl Table {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(|text| Cell::new(text, Style::Bold)).into()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    pub(super) fn print(&self, screen: &mut Screen<'_>) {
        for line in self.lines(screen) {
            screen.line(line);
        }
    }

    /// A line for each row; where a person's terminal is narrower, the last column is wrapped within itself, or below.
    pub(super) fn lines(&self, screen: &Screen<'_>) -> Vec<String> {
        let widths = self.widths();
        let is_blank = |row: &&Vec<Cell>| row.iter().all(|cell| cell.text.is_empty());
        self.rows.iter().skip_while(is_blank).flat_map(|row| row_lines(row, &widths, screen)).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column| self.rows.iter().filter_map(|row: &Vec<Cell>| row.get(column)).map(Cell::width).max();
        (0..columns).map(|column| width(column).unwrap_or(0)).collect()
    }
}

fn row_lines(row: &[Cell], widths: &[usize], screen: &Screen<'_>) -> Vec<String> {
    let Some((last, cells)) = row.split_last() else { return Vec::new() };
    let mut head = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        head += &screen.paint(cell.style, &cell.text);
        head += &" ".repeat(width + 2 - cell.width());
    }
    let before = widths.iter().take(cells.len()).map(|width| width + 2).sum();
    let room = screen.columns().map(|columns| (columns, columns.saturating_sub(before)));
    let (indent, parts) = match room {
        Some((_, room)) if room >= LEAST => (" ".repeat(before), wrap(&last.text, room)),
        Some((columns, room)) if room < last.width() => {
            let below = wrap(&last.text, columns.saturating_sub(BELOW.len()));
            (BELOW.into(), [vec![String::new()], below].concat())
        }
        _ => (String::new(), vec![last.text.clone()]),
    };
    let line = |(number, part): (usize, &String)| {
        let start = if number == 0 { &head } else { &indent };
        format!("{start}{}", screen.paint(last.style, part)).trim_end().to_owned()
    };
    parts.iter().enumerate().map(line).collect()
}

/// Bytes as people read them.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "WHY"]);
        table.row([
            "Ćwikła".into(),
            Cell::new("both routers take another port for every destination", Style::Bad),
        ]);
        table.row(["Bob\x1b[31m".into(), "direct".into()]);
        table
    }

    #[test]
    fn pipes_get_a_line_for_each_row_without_control_characters() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(
            table().lines(&Screen::plain(&mut out, &mut err)),
            [
                "NAME     WHY",
                "Ćwikła   both routers take another port for every destination",
                "Bob[31m  direct"
            ]
        );
    }

    #[test]
    fn people_get_the_last_column_wrapped_within_itself() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let narrow = Screen::colored(&mut out, &mut err, 40);
        assert_eq!(
            table().lines(&narrow),
            [
                "\x1b[1mNAME\x1b[0m     \x1b[1mWHY\x1b[0m",
                "Ćwikła   \x1b[31mboth routers take another port\x1b[0m",
                "         \x1b[31mfor every destination\x1b[0m",
                "Bob[31m  direct"
            ]
        );
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let narrowest = Screen::colored(&mut out, &mut err, 30);
        assert_eq!(
            table().lines(&narrowest),
            [
                "\x1b[1mNAME\x1b[0m     \x1b[1mWHY\x1b[0m",
                "Ćwikła",
                "  \x1b[31mboth routers take another\x1b[0m",
                "  \x1b[31mport for every destination\x1b[0m",
                "Bob[31m  direct"
            ]
        );
    }

    #[test]
    fn sizes() {
        assert_eq!([5, 2048, 5 << 20, 3 << 30].map(size), ["5 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
