//! Charts as SVG files, drawn without any library: lines over named places, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 52.0;
const BAR: f64 = 26.0;
/// Readable on white, and told apart by people who confuse red and green (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a7a7a"];

/// Values at the places of the horizontal axis; `None` = not measured there.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// One a place.
    pub values: Vec<Option<f64>>,
}

/// Lines over named places.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Above everything.
    pub title: String,
    /// Names of the places.
    pub places: Vec<String>,
    /// What the places are.
    pub across: String,
    /// What the values are.
    pub up: String,
    /// Each step of the vertical axis is ten times the one below.
    pub logarithmic: bool,
    /// The lines.
    pub series: Vec<Series>,
}

impl Lines {
    /// The file's text.
    pub fn svg(&self) -> String {
        let scale =
            Scale::over(self.series.iter().flat_map(|series| &series.values).flatten(), self.logarithmic);
        let mut svg = begin(WIDTH, HEIGHT, &self.title);
        for tick in scale.ticks() {
            let y = scale.y(tick);
            line(&mut svg, (LEFT, y), (WIDTH - RIGHT, y), "#dddddd", 1.0);
            text(&mut svg, (LEFT - 8.0, y + 4.0), "end", "#333333", &number(tick));
        }
        for (at, place) in self.places.iter().enumerate() {
            text(&mut svg, (self.x(at), HEIGHT - BOTTOM + 18.0), "middle", "#333333", place);
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        text(&mut svg, (middle, HEIGHT - 12.0), "middle", "#333333", &self.across);
        text(&mut svg, (LEFT - 54.0, TOP - 8.0), "start", "#333333", &self.up);
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            self.draw(&mut svg, series, colour, &scale);
        }
        self.name_lines(&mut svg, &scale);
        svg + "</svg>\n"
    }

    fn x(&self, at: usize) -> f64 {
        let room = WIDTH - LEFT - RIGHT;
        LEFT + room * (at as f64 + 0.5) / self.places.len().max(1) as f64
    }

    fn draw(&self, svg: &mut String, series: &Series, colour: &str, scale: &Scale) {
        let points = series.values.iter().enumerate();
        let points: Vec<(f64, f64)> =
            points.filter_map(|(at, value)| Some((self.x(at), scale.y((*value)?)))).collect();
        for pair in points.windows(2) {
            line(svg, pair[0], pair[1], colour, 2.0);
        }
        for (x, y) in points {
            let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#);
        }
    }

    /// Each line's name at its right end, moved apart where they would lie on each other.
    fn name_lines(&self, svg: &mut String, scale: &Scale) {
        let last = |series: &Series| series.values.iter().rev().flatten().next().copied();
        let ends = self.series.iter().zip(COLOURS.iter().cycle());
        let mut ends: Vec<(f64, &str, &str)> = ends
            .filter_map(|(series, colour)| Some((scale.y(last(series)?), *colour, series.name.as_str())))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP;
        for (y, colour, name) in ends {
            let y = y.max(free);
            free = y + 16.0;
            text(svg, (WIDTH - RIGHT + 8.0, y + 4.0), "start", colour, name);
        }
    }
}

/// Named bars.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Above everything.
    pub title: String,
    /// Name and value.
    pub bars: Vec<(String, f64)>,
}

impl Bars {
    /// The file's text.
    pub fn svg(&self) -> String {
        let height = TOP + BAR * self.bars.len() as f64 + 14.0;
        let most = self.bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
        let (left, room) = (LEFT + 70.0, WIDTH - LEFT - 150.0);
        let mut svg = begin(WIDTH, height, &self.title);
        for (at, (name, value)) in self.bars.iter().enumerate() {
            let y = TOP + BAR * at as f64;
            let width = room * value / most;
            let colour = if name.starts_with("xdp") { COLOURS[0] } else { COLOURS[7] };
            text(&mut svg, (left - 8.0, y + 15.0), "end", "#333333", name);
            let _ = writeln!(
                svg,
                r#"<rect x="{left}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{colour}"/>"#,
                BAR - 8.0
            );
            text(&mut svg, (left + width + 6.0, y + 15.0), "start", "#333333", &number(*value));
        }
        svg + "</svg>\n"
    }
}

/// From values to heights.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn over<'a>(values: impl Iterator<Item = &'a f64> + Clone, logarithmic: bool) -> Self {
        let most = values.clone().fold(f64::MIN_POSITIVE, |most, value| most.max(*value));
        let least = values.fold(f64::MAX, |least, value| least.min(*value));
        if logarithmic {
            let low = 10_f64.powf(least.max(1e-3).log10().floor());
            return Self { low, high: 10_f64.powf(most.max(low * 10.0).log10().ceil()), logarithmic };
        }
        let step = step(most);
        Self { low: 0.0, high: (most / step).ceil() * step, logarithmic }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades).map(|at| self.low * 10_f64.powi(at)).collect();
        }
        let step = step(self.high);
        (0..=(self.high / step).round() as i32).map(|at| step * f64::from(at)).collect()
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
    }
}

/// A step of 1, 2 or 5 that gives a handful of ticks.
fn step(most: f64) -> f64 {
    let decade = 10_f64.powf((most / 4.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(decade * 10.0)
}

fn number(value: f64) -> String {
    let text = match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn begin(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{0}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n",
        escaped(title)
    );
    let _ = writeln!(svg, r##"<text x="16" y="22" font-size="15" fill="#000000">{}</text>"##, escaped(title));
    svg
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        svg,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="{width}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, colour: &str, text: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" fill="{colour}">{}</text>"#,
        at.0,
        at.1,
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_holds_its_names_and_stays_on_the_page() {
        let chart = Lines {
            title: "a < b".into(),
            places: vec!["1".into(), "1000".into()],
            across: "flows".into(),
            up: "ns".into(),
            logarithmic: false,
            series: vec![
                Series { name: "hash".into(), values: vec![Some(9.6), Some(310.0)] },
                Series { name: "floor".into(), values: vec![None, Some(1.0)] },
            ],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.contains(">hash<") && svg.contains(">floor<"));
        assert_eq!(svg.matches("<circle").count(), 3);
        let heights =
            svg.split("cy=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(heights.into_iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(&y)));
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let scale = Scale::over([0.3, 21.7].iter(), false);
        assert_eq!(scale.ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        let scale = Scale::over([6.0, 4_200.0].iter(), true);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
    }
}
