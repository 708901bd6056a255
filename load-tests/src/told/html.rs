//! One HTML file that needs nothing else: figures, charts, the machine, the command.

use super::sheet::Sheet;
use super::svg::escaped;

/// How it looks, by day and by night.
const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
td{padding:.2rem 1.5rem .2rem 0;vertical-align:top;white-space:pre-wrap}table{border-collapse:collapse}tr{border-bottom:1px solid #ddd}\
code{background:#f3f3f3;padding:.2rem .4rem}svg{max-width:100%;height:auto;margin:1rem 0;border:1px solid #ddd}\
.bad{background:#fdecea;border-left:4px solid #b71c1c;padding:.5rem 1rem}";

/// The page of a run.
pub(crate) fn page(sheet: &Sheet, command: &str) -> String {
    let title = escaped(&format!("muster-load {}", sheet.scenario));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<p><code>{}</code></p>\n",
        escaped(&sheet.machine.line()),
        escaped(command)
    );
    for problem in &sheet.problems {
        put(&mut page, &format!("<p class=\"bad\">The run counts for nothing: {}</p>", escaped(problem)));
    }
    put(&mut page, "<table>");
    for (words, value) in sheet.rows() {
        put(&mut page, &format!("<tr><td>{}</td><td>{}</td></tr>", escaped(&words), escaped(&value)));
    }
    put(&mut page, "</table>");
    for chart in &sheet.charts {
        put(&mut page, &chart.svg());
    }
    put(&mut page, "</html>");
    page
}

fn put(page: &mut String, element: &str) {
    page.push_str(element);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::cores::Cores;
    use crate::tls::Suite;
    use crate::told::machine::{Machine, Switch};
    use crate::told::sheet::Figure;
    use crate::told::svg::Chart;

    #[test]
    fn a_page_holds_figures_charts_and_problems_and_loads_nothing() {
        let cores = Cores { server: Some(0), load: vec![1] };
        let switch = Switch { pid: None, suite: Suite::X25519 };
        let mut sheet = Sheet::new("idle", Machine::this(&cores, true, &switch));
        sheet.figures.put("bytes_per_session", "memory <each>", "bytes", Figure::Count(7));
        sheet.charts.push(Chart::Bars { title: "CPU".to_owned(), y: "µs".to_owned(), bars: vec![] });
        sheet.problems.push("a message is missing".to_owned());

        let page = page(&sheet, "muster-load idle --home '<x>'");

        for part in ["memory &lt;each&gt;", "7 bytes", "<svg ", "a message is missing", "&lt;x&gt;"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for foreign in ["<script", "src=", "<link", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
