//! Curves as SVG: one small chart, no library.

use std::fmt::Write;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 36.0;
const SIDE: f64 = 300.0;

/// A chart whose both axes run from 0 to 1.
#[must_use]
pub(crate) fn chart(title: &str, x: &str, y: &str, points: &[(f64, f64)], diagonal: bool) -> String {
    let mut svg = String::new();
    let at = |(x, y): (f64, f64)| (LEFT + SIDE * x.clamp(0.0, 1.0), TOP + SIDE * (1.0 - y.clamp(0.0, 1.0)));
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ok = svg.write_fmt(text);
        svg.push('\n');
    };
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    ));
    line(format_args!(r##"<rect width="100%" height="100%" fill="#fff"/>"##));
    line(format_args!(r#"<text x="{LEFT}" y="20" font-size="14">{}</text>"#, escaped(title)));
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let ((left, level), (across, bottom)) = (at((0.0, share)), at((share, 0.0)));
        line(format_args!(
            r##"<path d="M{left:.1} {level:.1}h{SIDE}M{across:.1} {bottom:.1}v-{SIDE}" stroke="#ddd" fill="none"/>"##
        ));
        line(format_args!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{share:.1}</text>"#, left - 6.0, level + 4.0));
        line(format_args!(r#"<text x="{across:.1}" y="{:.1}" text-anchor="middle">{share:.1}</text>"#, bottom + 16.0));
    }
    if diagonal {
        let ((a, b), (c, d)) = (at((0.0, 0.0)), at((1.0, 1.0)));
        line(format_args!(
            r##"<path d="M{a:.1} {b:.1}L{c:.1} {d:.1}" stroke="#999" stroke-dasharray="4" fill="none"/>"##
        ));
    }
    let path: Vec<String> = points.iter().map(|&point| at(point)).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    line(format_args!(r##"<path d="M{}" stroke="#1660a8" stroke-width="1.5" fill="none"/>"##, path.join("L")));
    line(format_args!(
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        LEFT + SIDE / 2.0,
        HEIGHT - 8.0,
        escaped(x)
    ));
    let middle = TOP + SIDE / 2.0;
    line(format_args!(
        r#"<text x="14" y="{middle:.1}" text-anchor="middle" transform="rotate(-90 14 {middle:.1})">{}</text>"#,
        escaped(y)
    ));
    line(format_args!("</svg>"));
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
