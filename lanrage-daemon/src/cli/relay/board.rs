//! The table that `lanrage relay top` shows.

use super::rates::{MemberRates, PlaneRates, Rates, ReasonRate};
use crate::cli::screen::{Screen, Style};
use lanrage_common::api::RelayMode;

/// Columns of a reason before its explanation.
const REASON_COLUMNS: usize = 44;

/// Lines of at most `width` columns, at most `height` of them when that is given, and at most `members` members.
pub(super) fn lines(
    rates: &Rates,
    screen: &Screen<'_>,
    width: usize,
    height: Option<usize>,
    members: usize,
) -> Vec<String> {
    let mut lines = head(rates, screen);
    lines.push(String::new());
    lines.push(bold(
        screen,
        &format!("{:<7} {:>10} {:>10} {:>10} {:>10}", "", "IN pps", "IN bit/s", "OUT pps", "OUT bit/s"),
    ));
    lines.push(plane("kernel", &rates.kernel));
    lines.push(plane("daemon", &rates.userspace));
    lines.push(String::new());
    let room = height.unwrap_or(usize::MAX).saturating_sub(lines.len() + 2);
    let reasons = rates
        .reasons
        .len()
        .min(room / 2)
        .max(room.saturating_sub(rates.members.len().min(members) + 2).min(rates.reasons.len()));
    let shown = members.min(room.saturating_sub(reasons));
    lines.push(bold(
        screen,
        &format!(
            "{:>5} {:<8} {:<8} {:<24} {:>7} {:>7} {:>7} {:>7}",
            "SLOT", "KEY", "PARTY", "ADDRESS", "pps", "bit/s", "DROP/s", "LIMIT"
        ),
    ));
    lines.extend(rates.members.iter().take(shown).map(|member| row(member, screen)));
    if rates.members.len() > shown {
        lines.push(screen.paint(Style::Dim, &format!("      {} more members", rates.members.len() - shown)));
    } else if rates.members.is_empty() {
        lines.push(screen.paint(Style::Dim, "      nobody is bound"));
    }
    lines.push(String::new());
    lines.push(bold(
        screen,
        &format!("{:<6} {:<21} {:>6} {:>6}  {}", "BY", "REASON", "/s", "TOTAL", "WHAT IT MEANS"),
    ));
    lines.extend(rates.reasons.iter().take(reasons.max(1)).map(|reason| reason_row(reason, screen, width)));
    lines
}

fn head(rates: &Rates, screen: &Screen<'_>) -> Vec<String> {
    let region = if rates.region.is_empty() { String::new() } else { format!(" ({})", rates.region) };
    let (style, mode) = match rates.mode {
        RelayMode::XdpNative => (Style::Good, "native XDP"),
        RelayMode::XdpGeneric => (Style::Warn, "generic XDP"),
        RelayMode::Userspace => (Style::Bad, "userspace"),
    };
    let (registered_style, registered) =
        if rates.registered { (Style::Good, "registered") } else { (Style::Bad, "NOT registered") };
    let first = format!(
        "{}{region}  {}  {}  up {}",
        screen.paint(Style::Bold, &printable(&rates.name)),
        screen.paint(style, mode),
        screen.paint(registered_style, registered),
        life(rates.at_ms / 1000)
    );
    let unresolved = match rates.next_hops_unresolved {
        0 => String::new(),
        count => screen.paint(Style::Warn, &format!("  {count} next hops unresolved")),
    };
    let second = format!(
        "{} of {} members bound, {} of {} flows{unresolved}",
        rates.bindings, rates.max_bindings, rates.flows, rates.max_flows
    );
    vec![first, second]
}

fn plane(name: &str, rates: &PlaneRates) -> String {
    format!(
        "{name:<7} {:>10} {:>10} {:>10} {:>10}",
        scaled(rates.in_packets_per_s),
        scaled(rates.in_bits_per_s),
        scaled(rates.out_packets_per_s),
        scaled(rates.out_bits_per_s)
    )
}

fn row(member: &MemberRates, screen: &Screen<'_>) -> String {
    let limit = match member.kbit_per_s_allowed {
        0 => "-".into(),
        kbit => scaled(f64::from(kbit) * 1000.0),
    };
    let drops = format!("{:>7}", scaled(member.drops_per_s));
    let drops = if member.drops_per_s > 0.0 { screen.paint(Style::Warn, &drops) } else { drops };
    format!(
        "{:>5} {:<8} {:<8} {:<24} {:>7} {:>7} {drops} {limit:>7}",
        member.slot,
        printable(&member.key),
        printable(&member.party),
        member.address.to_string(),
        scaled(member.packets_per_s),
        scaled(member.bits_per_s),
    )
}

fn reason_row(reason: &ReasonRate, screen: &Screen<'_>, width: usize) -> String {
    let room = width.saturating_sub(REASON_COLUMNS);
    let what = if reason.what.chars().count() > room {
        let cut: String = reason.what.chars().take(room.saturating_sub(1)).collect();
        format!("{}…", cut.trim_end())
    } else {
        reason.what.clone()
    };
    let figures = format!(
        "{:<6} {:<21} {:>6} {:>6}",
        reason.plane,
        reason.name,
        scaled(reason.per_s),
        scaled(reason.total as f64)
    );
    format!("{figures}  {}", screen.paint(Style::Dim, &what))
}

fn bold(screen: &Screen<'_>, text: &str) -> String {
    screen.paint(Style::Bold, text.trim_end())
}

/// Names come from configurations; control characters must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Three significant digits and a letter: `1.24M`.
pub(super) fn scaled(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => return format!("{value:.0}"),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

fn life(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 { format!("{days}d {hours}h") } else { format!("{hours}:{minutes:02}:{:02}", seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixture::relay_detail;

    fn board(height: Option<usize>) -> Vec<String> {
        let mut later = relay_detail();
        later.at_ms += 1000;
        later.kernel[0].packets += 1_500_000;
        later.kernel[0].bytes += 300_000_000;
        later.members[0].kernel_packets += 1_500_000;
        later.members[0].kernel_bytes += 300_000_000;
        later.members[1].dropped += 3;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        lines(&Rates::between(&relay_detail(), &later), &Screen::plain(&mut out, &mut err), 80, height, 15)
    }

    #[test]
    fn the_board_fits_into_eighty_columns_and_says_it_all() {
        let lines = board(None);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let text = lines.join("\n");
        assert!(text.starts_with("paris (eu-west)  generic XDP  registered  up 0:01:01\n"), "{text}");
        assert!(text.contains("3 of 16384 members bound, 6 of 65536 flows"), "{text}");
        assert!(text.contains("kernel       1.50M      2.40G      1.50M      2.40G"), "{text}");
        assert!(
            text.contains("    1 key1     Friday   198.51.100.4:51820         1.50M   2.40G       0   20.0M"),
            "{text}"
        );
        assert!(text.contains("kernel forwarded              1.50M  1.51M  About forwarded."), "{text}");
    }

    #[test]
    fn a_low_terminal_shows_fewer_rows() {
        assert!(board(Some(14)).len() <= 14);
        assert!(board(Some(5)).len() < 14, "headings stay");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 9.4, 9999.0, 12_345.0, 1_240_000.0, 999_000_000.0, 12e9].map(scaled);
        assert_eq!(shown, ["0", "9", "9999", "12.3k", "1.24M", "999M", "12.0G"]);
    }
}
