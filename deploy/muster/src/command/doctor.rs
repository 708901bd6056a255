//! `muster doctor`: looks for what is wrong along the way from this home to the devices, and says what would fix it.

use std::time::Duration;

use muster_pki::{Certificate, Facts, Role, Roots};
use muster_proto::operator::v1::{GetStatusRequest, GetStatusResponse};
use rustls_pki_types::UnixTime;

use crate::cli::Doctor;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Table};

/// Certificates are announced this long before they end (trust.md N3).
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 86_400);
/// Free space at the Switch below which the doctor speaks up.
const DISK_FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Broken,
}

/// The checks that were made.
struct Report {
    table: Table,
    worst: Exit,
}

impl Report {
    fn add(&mut self, check: &str, verdict: Verdict, found: impl Into<String>, fix: impl Into<String>) {
        let verdict_text = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Broken => "broken",
        };
        if verdict == Verdict::Broken && self.worst == Exit::Ok {
            self.worst = Exit::Refused;
        }
        self.table.push(vec![
            Cell::text(check),
            Cell::text(verdict_text),
            Cell::text(found),
            Cell::text(fix),
        ]);
    }
}

/// Runs the checks in the order in which they depend on each other.
pub(crate) async fn run(home: &Home, context: Option<&str>, arguments: &Doctor) -> Result<Exit, Failure> {
    let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };
    certificate(&mut report, home, "operator certificate", "operator/tls.pem", Role::Operator, "operators");
    certificate(
        &mut report,
        home,
        "order-signing certificate",
        "operator/order.pem",
        Role::OrderSigner,
        "orders",
    );
    match home.context(context) {
        Ok(context) => {
            report.add("context", Verdict::Ok, format!("{} → {}", context.name, context.switch), "");
            switch(&mut report, home, &context).await;
            background_channel(&mut report, home, &context).await;
        }
        Err(failure) => {
            report.add("context", Verdict::Broken, failure.to_string(), "muster dev, or muster ctx add")
        }
    }
    report.table.print(arguments.output)?;
    if report.worst != Exit::Ok {
        output::note("something is broken; the last column says what to do");
    }
    Ok(report.worst)
}

/// Holds one of the home's certificates against the rules.
fn certificate(report: &mut Report, home: &Home, check: &str, file: &str, role: Role, roots: &str) {
    let fix =
        format!("put a fresh one there; with a development CA: muster pki issue NAME --role {}", role.name());
    let path = home.path(file);
    let read =
        |path: &std::path::Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let checked = read(&path).and_then(|bytes| {
        let chain = muster_pki::pem::certificates(&bytes, file).map_err(|error| error.to_string())?;
        let roots_path = home.roots(roots);
        let roots = Roots::from_pem(&read(&roots_path)?, &roots_path.display().to_string())
            .map_err(|error| error.to_string())?;
        let facts = Facts { now: UnixTime::now(), name: None, intermediates: &[], revocation: None };
        muster_pki::check_with(&muster_pki::Policy::default(), role, &chain, &roots, &facts)
            .into_result()
            .map_err(|refused| refused.to_string())
    });
    match checked {
        Ok(leaf) => {
            let (verdict, fix) = match expires_soon(&leaf) {
                true => (Verdict::Warning, "renew it"),
                false => (Verdict::Ok, ""),
            };
            report.add(check, verdict, format!("{} until {}", leaf.subject(), until(&leaf)), fix);
        }
        Err(problem) => report.add(check, Verdict::Broken, first_line(&problem), fix),
    }
}

fn expires_soon(leaf: &Certificate) -> bool {
    leaf.not_after().as_secs() < UnixTime::now().as_secs() + EXPIRY_NOTICE.as_secs()
}

fn until(leaf: &Certificate) -> String {
    output::moment(i64::try_from(leaf.not_after().as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX))
}

async fn switch(report: &mut Report, home: &Home, context: &Context) {
    let asked = async {
        let operator = Operator::connect(home, context).await?;
        Ok::<_, Failure>(answered(operator.status().get_status(GetStatusRequest {})).await?)
    };
    match asked.await {
        Ok(status) => healthy(report, &status),
        Err(failure) => {
            report.worst = failure.exit();
            let fix = match failure.exit() {
                Exit::Unreachable => "start it: muster dev, or systemctl start muster-switch",
                Exit::Ok | Exit::Refused | Exit::Usage | Exit::Partial | Exit::Denied => {
                    failure.next().unwrap_or_default()
                }
            };
            report.add("switch", Verdict::Broken, first_line(&failure.to_string()), fix);
        }
    }
}

/// The Background Channel answers HTTPS, and takes the operator's certificate.
async fn background_channel(report: &mut Report, home: &Home, context: &Context) {
    if context.background_channel.is_empty() {
        return;
    }
    match super::resource::count(home, context).await {
        Ok(resources) => {
            let found = format!("{}, {resources} resources", context.background_channel);
            report.add("background channel", Verdict::Ok, found, "");
        }
        Err(failure) => {
            report.worst = failure.exit();
            let fix = match failure.exit() {
                Exit::Unreachable => "start it: muster dev, or systemctl start muster-background-channel",
                Exit::Ok | Exit::Refused | Exit::Usage | Exit::Partial | Exit::Denied => {
                    failure.next().unwrap_or_default()
                }
            };
            report.add("background channel", Verdict::Broken, first_line(&failure.to_string()), fix);
        }
    }
}

/// Long explanations have their place in the command that failed; a table shows their beginning.
fn first_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    let line =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= CHARACTERS_MAX {
        return line;
    }
    line.chars().take(CHARACTERS_MAX).chain(['…']).collect()
}

fn healthy(report: &mut Report, status: &GetStatusResponse) {
    let found =
        format!("version {}, {} sessions, {} devices", status.version, status.sessions, status.devices);
    report.add("switch", Verdict::Ok, found, "");
    match status.licence_serial {
        0 => report.add("licence", Verdict::Broken, "none", "muster licence import FILE"),
        serial => {
            let until = output::moment(status.licence_expires_at_ms);
            report.add("licence", Verdict::Ok, format!("serial {serial} until {until}"), "");
        }
    }
    disk(report, status);
    for warning in &status.warnings {
        report.add("switch says", Verdict::Warning, warning, "");
    }
}

/// Below its reserve the Switch is there and refuses all that is asked: whoever looks at the exit code must see it.
fn disk(report: &mut Report, status: &GetStatusResponse) {
    let GetStatusResponse { disk_free_bytes: free, disk_reserve_bytes: reserve, data_dir, .. } = status;
    let free_mib = format!("{} MiB free at the Switch", free / 1024 / 1024);
    if free < reserve {
        let found = format!(
            "{free_mib}, below its disk_reserve of {} MiB: orders and imports are refused, events wait",
            reserve / 1024 / 1024
        );
        let fix = format!("free space in {data_dir} there, or lower [engine] disk_reserve");
        return report.add("disk", Verdict::Broken, found, fix);
    }
    // The reserve again on top of it, so that the warning comes before the refusals.
    let (verdict, fix) = if *free < DISK_FREE_BYTES_MIN.max(reserve.saturating_mul(2)) {
        (Verdict::Warning, format!("free space in {data_dir} there"))
    } else {
        (Verdict::Ok, String::new())
    };
    report.add("disk", verdict, free_mib, fix);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn checked(status: GetStatusResponse) -> (Exit, Vec<serde_json::Value>) {
        let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };
        healthy(&mut report, &GetStatusResponse { licence_serial: 1, ..status });
        (report.worst, report.table.objects())
    }

    #[test]
    fn a_switch_below_its_disk_reserve_is_broken_and_the_fix_names_folder_and_key() {
        let status = |free| GetStatusResponse {
            disk_free_bytes: free,
            disk_reserve_bytes: 2 * GIB,
            data_dir: "/srv/store".to_owned(),
            ..GetStatusResponse::default()
        };

        let (exit, rows) = checked(status(2 * GIB - 1));
        let (nearly, warned) = checked(status(3 * GIB));
        let (ample, _) = checked(status(4 * GIB));

        let disk = rows.iter().find(|row| row["check"] == "disk").unwrap();
        assert_eq!((exit, &disk["verdict"]), (Exit::Refused, &"broken".into()));
        let fix = disk["fix"].as_str().unwrap();
        assert!(fix.contains("/srv/store") && fix.contains("disk_reserve"), "{fix}");
        assert_eq!((nearly, ample), (Exit::Ok, Exit::Ok));
        assert!(warned.iter().any(|row| row["check"] == "disk" && row["verdict"] == "warning"), "{warned:?}");
    }

    #[test]
    fn a_warning_of_the_switch_is_shown_and_breaks_nothing() {
        let warnings = vec!["the store is an older copy".to_owned()];

        let (exit, rows) = checked(GetStatusResponse {
            disk_free_bytes: u64::MAX,
            warnings,
            ..GetStatusResponse::default()
        });

        assert_eq!(exit, Exit::Ok, "one device that lies must not call somebody at night");
        let said = rows.iter().find(|row| row["check"] == "switch says").unwrap();
        assert_eq!(
            (&said["verdict"], &said["found"]),
            (&"warning".into(), &"the store is an older copy".into())
        );
    }
}
