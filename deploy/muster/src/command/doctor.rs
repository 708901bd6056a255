//! `muster doctor`: looks for what is wrong along the way from this home to the devices, and says what would fix it.

use std::time::Duration;

use muster_pki::{Certificate, Facts, Role, Roots};
use muster_proto::operator::v1::{Client as Device, GetStatusRequest, GetStatusResponse};
use muster_sign::FileKind;
use rustls_pki_types::UnixTime;

use crate::address;
use crate::cli::Doctor;
use crate::clock::now_ms;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::{self, Operator, answered};
use crate::output::{self, Cell, Table};

/// Certificates are announced this long before they end (trust.md N3).
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 86_400);
/// The same of the licence, in milliseconds.
const LICENCE_WARNING_MS: i64 = 30 * 86_400_000;
/// Devices whose certificates are looked at.
const DEVICES_MAX: u32 = 10_000;
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
    roots(&mut report, home, UnixTime::now());
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
    let read = |path: &std::path::Path| {
        muster_sign::read_file(path, FileKind::CERTIFICATES).map_err(|error| error.to_string())
    };
    let checked = read(&path).and_then(|bytes| {
        let chain = muster_pki::pem::certificates(&bytes, file).map_err(|error| error.to_string())?;
        let roots_path = home.roots(roots);
        let roots = Roots::from_pem(&read(&roots_path)?, &roots_path.display().to_string())
            .map_err(|error| error.to_string())?;
        let facts = Facts::at(UnixTime::now());
        muster_pki::check_with(&muster_pki::Policy::default(), role, &chain, &roots, &facts)
            .into_result()
            .map_err(|refused| refused.to_string())
    });
    match checked {
        Ok(leaf) => {
            let (verdict, fix) = match expires_soon(&leaf, UnixTime::now()) {
                Some(_) => (Verdict::Warning, "renew it"),
                None => (Verdict::Ok, ""),
            };
            let soon =
                expires_soon(&leaf, UnixTime::now()).map(|soon| format!(", {soon}")).unwrap_or_default();
            report.add(check, verdict, format!("{} until {}{soon}", leaf.subject(), until(&leaf)), fix);
        }
        Err(problem) => report.add(check, Verdict::Broken, first_line(&problem), fix),
    }
}

/// Returns what to say of a certificate that has ended, or is about to.
fn expires_soon(certificate: &Certificate, now: UnixTime) -> Option<String> {
    let left = certificate.not_after().as_secs().saturating_sub(now.as_secs());
    match left {
        0 => Some("expired".to_owned()),
        left if left <= EXPIRY_NOTICE.as_secs() => Some(format!("expires in {} days", left / 86_400)),
        _ => None,
    }
}

/// Warns of roots in this home that are about to end: with them, every certificate below does.
fn roots(report: &mut Report, home: &Home, now: UnixTime) {
    for name in [
        "devices",
        "operators",
        "services",
        "servers",
        "authors",
        "orders",
        "licences",
        "policies",
        "timestamps",
    ] {
        let path = home.roots(name);
        // Whoever needs them is told that they are missing; a home need not have all.
        let read = muster_sign::read_file(&path, FileKind::CERTIFICATES).ok();
        let read = read.and_then(|bytes| Roots::from_pem(&bytes, &path.display().to_string()).ok());
        for root in read.iter().flat_map(Roots::iter) {
            if let Some(soon) = expires_soon(root, now) {
                let found = format!("{}: {} {soon}", path.display(), root.subject());
                report.add(
                    "roots",
                    Verdict::Warning,
                    found,
                    "put its successor beside it, everywhere it is trusted",
                );
            }
        }
    }
}

/// Counts the devices whose certificates are about to end.
async fn devices(report: &mut Report, operator: &Operator) -> Result<(), Failure> {
    let devices = super::client::devices(operator, "", DEVICES_MAX).await?;
    ending_devices(report, &devices, UnixTime::now());
    Ok(())
}

fn ending_devices(report: &mut Report, devices: &[Device], now: UnixTime) {
    let notice = now.as_secs().saturating_add(EXPIRY_NOTICE.as_secs()).saturating_mul(1_000);
    let notice = i64::try_from(notice).unwrap_or(i64::MAX);
    // One that never said when its certificate ends has not had a session yet.
    let ending = devices.iter().filter(|device| (1..=notice).contains(&device.certificate_not_after_ms));
    let Some(first) = ending.clone().min_by_key(|device| device.certificate_not_after_ms) else { return };
    let found = format!(
        "{} of {} devices have a certificate that expires within 30 days, {} first ({})",
        ending.count(),
        devices.len(),
        first.device,
        output::moment(first.certificate_not_after_ms)
    );
    report.add(
        "device certificates",
        Verdict::Warning,
        found,
        "renew them; muster client list -o wide shows until when",
    );
}

fn until(leaf: &Certificate) -> String {
    output::moment(i64::try_from(leaf.not_after().as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX))
}

async fn switch(report: &mut Report, home: &Home, context: &Context) {
    let asked = async {
        let operator = Operator::connect(home, context).await?;
        let status = answered(operator.status().get_status(GetStatusRequest {})).await?;
        Ok::<_, Failure>((operator, status))
    };
    match asked.await {
        Ok((operator, status)) => {
            healthy(report, &status, now_ms());
            shown(report, home, "switch certificate", &context.switch, b"h2").await;
            if let Err(failure) = devices(report, &operator).await {
                let found = first_line(&failure.to_string());
                report.add(
                    "device certificates",
                    Verdict::Warning,
                    found,
                    failure.next().unwrap_or_default(),
                );
            }
        }
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

/// Says which certificate a server shows, and until when (N3).
async fn shown(report: &mut Report, home: &Home, check: &str, address: &str, alpn: &[u8]) {
    match operator::server_certificate(home, address, alpn).await {
        Ok(certificate) => server_certificate(report, check, &certificate, UnixTime::now()),
        // It was reached a moment ago.
        Err(failure) => {
            let found = first_line(&failure.to_string());
            report.add(check, Verdict::Warning, found, failure.next().unwrap_or_default());
        }
    }
}

fn server_certificate(report: &mut Report, check: &str, certificate: &Certificate, now: UnixTime) {
    let found = format!(
        "{} until {}, thumbprint {}",
        certificate.subject(),
        until(certificate),
        certificate.thumbprint()
    );
    match expires_soon(certificate, now) {
        None => report.add(check, Verdict::Ok, found, ""),
        Some(soon) => {
            let fix = "renew it: replace the files of its [tls], or put the new one into its store";
            report.add(check, Verdict::Warning, format!("{found}, {soon}"), fix);
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
            if let Ok(url) = address::url("https", 443, &context.background_channel) {
                shown(report, home, "background channel certificate", &url.address, b"http/1.1").await;
            }
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

fn healthy(report: &mut Report, status: &GetStatusResponse, now_ms: i64) {
    let found =
        format!("version {}, {} sessions, {} devices", status.version, status.sessions, status.devices);
    report.add("switch", Verdict::Ok, found, "");
    match status.licence_serial {
        0 => {
            let problem = first_line(&status.licence_problem);
            let why = if problem.is_empty() { "none".to_owned() } else { problem };
            report.add("licence", Verdict::Broken, why, "muster licence import FILE");
        }
        serial => licence(report, serial, status, now_ms),
    }
    disk(report, status);
    for warning in &status.warnings {
        report.add("switch says", Verdict::Warning, warning, "");
    }
}

/// Nothing can be issued under a licence that has ended (G6); whoever asks here learns it before, since a new one takes its issuer days.
fn licence(report: &mut Report, serial: u64, status: &GetStatusResponse, now_ms: i64) {
    let expires_at_ms = status.licence_expires_at_ms;
    let found = format!("serial {serial} until {}", output::moment(expires_at_ms));
    let fix = "muster licence import FILE, with a newer one of its issuer";
    if expires_at_ms > now_ms && !status.licence_problem.is_empty() {
        let found = format!("{found}: nothing can be issued: {}", first_line(&status.licence_problem));
        return report.add("licence", Verdict::Broken, found, fix);
    }
    let (verdict, said) = match expires_at_ms.saturating_sub(now_ms) {
        ..=0 => (Verdict::Broken, ", which has passed: nothing can be issued"),
        1..LICENCE_WARNING_MS => (Verdict::Warning, ", which is soon"),
        LICENCE_WARNING_MS.. => (Verdict::Ok, ""),
    };
    let fix = if said.is_empty() { "" } else { fix };
    report.add("licence", verdict, format!("{found}{said}"), fix);
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
    const NOW_MS: i64 = 1_800_000_000_000;

    /// A Switch with room and a licence for years.
    fn sound() -> GetStatusResponse {
        let ends = NOW_MS + 10 * LICENCE_WARNING_MS;
        GetStatusResponse {
            licence_serial: 1,
            licence_expires_at_ms: ends,
            disk_free_bytes: u64::MAX,
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn g6_a_licence_that_has_ended_is_broken_and_one_that_ends_within_thirty_days_warns() {
        for (left_ms, verdict, exit) in [
            (LICENCE_WARNING_MS, "ok", Exit::Ok),
            (LICENCE_WARNING_MS - 1, "warning", Exit::Ok),
            (1, "warning", Exit::Ok),
            (0, "broken", Exit::Refused),
            (-1, "broken", Exit::Refused),
        ] {
            let (worst, rows) =
                checked(GetStatusResponse { licence_expires_at_ms: NOW_MS + left_ms, ..sound() });

            let licence = rows.iter().find(|row| row["check"] == "licence").unwrap();
            assert_eq!((&licence["verdict"], worst), (&verdict.into(), exit), "{left_ms}: {licence}");
        }
    }

    #[test]
    fn g6_a_licence_whose_signer_does_not_count_any_more_is_broken_though_it_has_not_ended() {
        let licence_problem = "SIGNER_REVOKED: licence: R2 refused".to_owned();

        let (worst, rows) = checked(GetStatusResponse { licence_problem, ..sound() });

        let licence = rows.iter().find(|row| row["check"] == "licence").unwrap();
        assert_eq!((&licence["verdict"], worst), (&"broken".into(), Exit::Refused));
        assert!(licence["found"].as_str().unwrap().contains("SIGNER_REVOKED"), "{licence}");
    }

    #[test]
    fn g6_a_licence_that_is_damaged_is_broken_and_told_with_its_serial() {
        for (licence_problem, found) in
            [("", "none"), ("licence 3 is damaged on the disk", "licence 3 is damaged")]
        {
            let licence_problem = licence_problem.to_owned();
            let status =
                GetStatusResponse { licence_serial: 0, licence_expires_at_ms: 0, licence_problem, ..sound() };

            let (worst, rows) = checked(status);

            let licence = rows.iter().find(|row| row["check"] == "licence").unwrap();
            assert_eq!((&licence["verdict"], worst), (&"broken".into(), Exit::Refused));
            assert!(licence["found"].as_str().unwrap().contains(found), "{licence}");
        }
    }

    fn checked(status: GetStatusResponse) -> (Exit, Vec<serde_json::Value>) {
        let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };
        healthy(&mut report, &status, NOW_MS);
        (report.worst, report.table.objects())
    }

    #[test]
    fn a_switch_below_its_disk_reserve_is_broken_and_the_fix_names_folder_and_key() {
        let status = |free| GetStatusResponse {
            disk_free_bytes: free,
            disk_reserve_bytes: 2 * GIB,
            data_dir: "/srv/store".to_owned(),
            ..sound()
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

        let (exit, rows) = checked(GetStatusResponse { warnings, ..sound() });

        assert_eq!(exit, Exit::Ok, "one device that lies must not call somebody at night");
        let said = rows.iter().find(|row| row["check"] == "switch says").unwrap();
        assert_eq!(
            (&said["verdict"], &said["found"]),
            (&"warning".into(), &"the store is an older copy".into())
        );
    }
    #[test]
    fn n3_devices_whose_certificates_end_within_thirty_days_are_counted() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let device = |name: &str, days: i64| Device {
            device: name.to_owned(),
            certificate_not_after_ms: (1_800_000_000 + days * 86_400) * 1_000,
            ..Device::default()
        };
        let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };

        ending_devices(&mut report, &[device("late", 31), Device::default()], now);
        let before = report.table.len();
        ending_devices(&mut report, &[device("w1", 12), device("late", 31), device("w2", -1)], now);

        assert_eq!((before, report.worst), (0, Exit::Ok));
        let rows = report.table.objects();
        let found = rows[0]["found"].as_str().unwrap();
        assert!(found.starts_with("2 of 3 devices") && found.contains("w2 first"), "{found}");
    }

    #[test]
    fn n3_the_certificate_that_a_server_shows_is_named_with_its_end() {
        let start = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let year = Duration::from_secs(365 * 86_400);
        let server = muster_pki::authority::Authority::root("switch.acme.local", year, start).unwrap();
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + days * 86_400));
        let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };

        server_certificate(&mut report, "switch certificate", server.certificate(), at(1));
        server_certificate(&mut report, "switch certificate", server.certificate(), at(365 - 12));

        let rows = report.table.objects();
        let found = |row: usize| rows[row]["found"].as_str().unwrap();
        let thumbprint = server.certificate().thumbprint().to_string();
        assert_eq!((&rows[0]["verdict"], &rows[1]["verdict"]), (&"ok".into(), &"warning".into()));
        assert!(
            found(0).contains("CN=switch.acme.local until ") && found(0).contains(&thumbprint),
            "{rows:?}"
        );
        assert!(found(1).contains("expires in 12 days"), "{rows:?}");
    }

    #[test]
    fn n3_roots_of_the_home_are_told_of_thirty_days_before_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let start = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let year = Duration::from_secs(365 * 86_400);
        let root = muster_pki::authority::Authority::root("Old", year, start).unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let path = home.roots("devices");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, root.certificate_pem()).unwrap();
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + days * 86_400));
        let mut report = Report { table: Table::new(["check", "verdict", "found", "fix"]), worst: Exit::Ok };

        roots(&mut report, &home, at(365 - 31));
        let before = report.table.len();
        roots(&mut report, &home, at(365 - 12));

        assert_eq!(before, 0);
        let rows = report.table.objects();
        assert!(rows[0]["found"].as_str().unwrap().contains("CN=Old expires in 12 days"), "{rows:?}");
    }
}
