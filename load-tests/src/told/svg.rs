//! Charts as SVG, written by hand: lines over a linear or logarithmic axis, and bars.

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that people with any sight tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Lines across.
const TICKS: u32 = 4;

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(crate) enum Chart {
    /// Curves of (x, y).
    Lines { title: String, x: String, y: String, scale: Scale, series: Vec<(String, Vec<(f64, f64)>)> },
    /// A bar for each.
    Bars { title: String, y: String, bars: Vec<(String, f64)> },
}

impl Chart {
    /// One SVG element that needs nothing else.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        match self {
            Self::Lines { title, x, y, scale, series } => {
                head(&mut svg, title, y);
                lines(&mut svg, x, *scale, series);
            }
            Self::Bars { title, y, bars } => {
                head(&mut svg, title, y);
                draw_bars(&mut svg, bars);
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Text as it may stand in XML and HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn head(svg: &mut String, title: &str, y: &str) {
    put(svg, (LEFT, 20.0), "start", title, " font-weight=\"bold\"");
    put(svg, (LEFT, 35.0), "start", y, " fill=\"#555\"");
}

fn lines(svg: &mut String, x_label: &str, scale: Scale, series: &[(String, Vec<(f64, f64)>)]) {
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let position = |x: f64| match scale {
        Scale::Linear => x,
        Scale::Logarithmic => x.max(1e-3).log10(),
    };
    let (from, to) = bounds(points().map(|(x, _)| position(x)), scale == Scale::Linear);
    let (_, top) = bounds(points().map(|(_, y)| y), true);
    let at = |x: f64, y: f64| {
        let across = (position(x) - from) / (to - from).max(f64::MIN_POSITIVE);
        (LEFT + across * (WIDTH - LEFT - RIGHT), height(y, top))
    };
    rules(svg, top);
    for tick in 0..=TICKS {
        let place = from + (to - from) * f64::from(tick) / f64::from(TICKS);
        let value = match scale {
            Scale::Linear => place,
            Scale::Logarithmic => 10_f64.powf(place),
        };
        let (x, _) = at(value, 0.0);
        put(svg, (x, HEIGHT - BOTTOM + 16.0), "middle", &label(value), "");
    }
    put(svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0), "middle", x_label, " fill=\"#555\"");
    for (number, ((name, points), colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: String = points
            .iter()
            .map(|(x, y)| {
                let (x, y) = at(*x, *y);
                format!("{x:.1},{y:.1} ")
            })
            .collect();
        put_raw(
            svg,
            &format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                path.trim_end()
            ),
        );
        #[expect(clippy::cast_precision_loss, reason = "a handful of curves")]
        let y = TOP + 14.0 * (number as f64 + 1.0);
        put(svg, (WIDTH - RIGHT, y), "end", name, &format!(" fill=\"{colour}\""));
    }
}

fn draw_bars(svg: &mut String, bars: &[(String, f64)]) {
    let (_, top) = bounds(bars.iter().map(|(_, value)| *value), true);
    rules(svg, top);
    #[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
    let each = (WIDTH - LEFT - RIGHT) / bars.len().max(1) as f64;
    let mut left = LEFT;
    for ((name, value), colour) in bars.iter().zip(COLOURS.iter().cycle()) {
        let y = height(*value, top);
        put_raw(
            svg,
            &format!(
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                left + each * 0.2,
                each * 0.6,
                HEIGHT - BOTTOM - y
            ),
        );
        put(svg, (left + each / 2.0, y - 4.0), "middle", &label(*value), "");
        put(svg, (left + each / 2.0, HEIGHT - BOTTOM + 16.0), "middle", name, "");
        left += each;
    }
}

/// Lines across, each with its value.
fn rules(svg: &mut String, top: f64) {
    for tick in 0..=TICKS {
        let value = top * f64::from(tick) / f64::from(TICKS);
        let y = height(value, top);
        put_raw(
            svg,
            &format!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT
            ),
        );
        put(svg, (LEFT - 6.0, y + 4.0), "end", &label(value), "");
    }
}

fn height(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - value / top.max(f64::MIN_POSITIVE) * (HEIGHT - TOP - BOTTOM)
}

/// The least and the greatest, from nothing where that is wanted; never the same.
fn bounds(values: impl Iterator<Item = f64>, from_zero: bool) -> (f64, f64) {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (least, greatest) = (least.min(value), greatest.max(value));
    }
    if from_zero || !least.is_finite() {
        least = 0.0;
    }
    if greatest <= least { (least, least + 1.0) } else { (least, greatest) }
}

fn label(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{:.0}k", value / 1_000.0),
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn put(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str, more: &str) {
    put_raw(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{}</text>", escaped(text)),
    );
}

fn put_raw(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Chart {
        Chart::Lines {
            title: "a < b".to_owned(),
            x: "sessions".to_owned(),
            y: "bytes".to_owned(),
            scale: Scale::Linear,
            series: vec![("Switch".to_owned(), points.to_vec())],
        }
    }

    #[test]
    fn a_curve_goes_from_corner_to_corner_of_its_frame() {
        let svg = curve(&[(0.0, 0.0), (10.0, 100.0)]).svg();

        let (left, right) = (LEFT, WIDTH - RIGHT);
        let (bottom, top) = (HEIGHT - BOTTOM, TOP);
        assert!(svg.contains(&format!("points=\"{left:.1},{bottom:.1} {right:.1},{top:.1}\"")), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn text_cannot_leave_its_place() {
        let svg = curve(&[]).svg();

        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let bars = vec![("Switch".to_owned(), 5.0), ("nats".to_owned(), 10.0)];

        let svg = Chart::Bars { title: "CPU".to_owned(), y: "µs".to_owned(), bars }.svg();

        let whole = HEIGHT - TOP - BOTTOM;
        assert!(svg.contains(&format!("height=\"{whole:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("height=\"{:.1}\"", whole / 2.0)), "{svg}");
    }

    #[test]
    fn a_logarithmic_axis_gives_each_decade_the_same_width() {
        let Chart::Lines { title, x, y, series, .. } = curve(&[(1.0, 1.0), (10.0, 2.0), (100.0, 4.0)]) else {
            panic!("lines");
        };

        let svg = Chart::Lines { title, x, y, scale: Scale::Logarithmic, series }.svg();

        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        assert!(svg.contains(&format!(" {middle:.1},")), "{svg}");
    }
}
