//! `muster pki inspect`: what a PEM or DER file holds. Nothing is verified.

use std::path::Path;

use muster_pki::{Certificate, CrlSummary, EnvelopeSummary, Item, KeySummary, RequestSummary, UnixTime};
use muster_sign::FileKind;
use muster_signing::envelope::ContentType;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::home::read_file;
use crate::output::{Cell, Flag, Format, Table};

/// Every column, in the order of the table; a file shows those that its items have.
const COLUMNS: [&str; 18] = [
    "kind",
    "subject",
    "issuer",
    "serial",
    "not_before",
    "not_after",
    "dns_names",
    "usages",
    "ca",
    "key",
    "thumbprint",
    "number",
    "this_update",
    "next_update",
    "entries",
    "signature",
    "content_type",
    "detail",
];

/// Columns that only `-o wide` shows.
const WIDE_ONLY: [&str; 5] = ["serial", "not_before", "key", "thumbprint", "signature"];

/// Whatever of a PKI there is; the largest of it are CRLs.
const ANY: FileKind = FileKind::new(
    "certificates, keys, CRLs, requests or an envelope (PEM, DER, or a PFX)",
    muster_pki::CRL_BYTES_MAX,
);

/// What one item says, by column.
type Facts = Vec<(&'static str, Cell)>;

/// Prints a row for each item of the file.
pub(super) fn run(file: &Path, format: Format) -> Result<Exit, Failure> {
    let bytes = read_file(file, ANY, "muster pki inspect FILE")?;
    let items = muster_pki::describe(&bytes, &file.display().to_string())
        .map_err(|error| Failure::usage(error.to_string()))?;
    table(&items).print(format)?;
    Ok(Exit::Ok)
}

fn table(items: &[Item]) -> Table {
    let rows: Vec<Facts> = items.iter().map(facts).collect();
    let has = |column: &str| rows.iter().flatten().any(|(name, _)| *name == column);
    let columns: Vec<&str> = COLUMNS.into_iter().filter(|column| has(column)).collect();
    // A key's kind is all there is to say of a key, so there it is no detail.
    let is_key = |item: &Item| matches!(item, Item::PrivateKey(_) | Item::PublicKey(_));
    let hidden: Vec<&str> =
        WIDE_ONLY.into_iter().filter(|column| *column != "key" || !items.iter().any(is_key)).collect();
    let mut table = Table::new(columns.iter().copied()).wide_only(&hidden);
    for row in rows {
        let cell = |column: &&str| row.iter().find(|(name, _)| name == column).map(|(_, cell)| cell.clone());
        table.push(columns.iter().map(|column| cell(column).unwrap_or_else(nothing)).collect());
    }
    table
}

fn facts(item: &Item) -> Facts {
    match item {
        Item::Certificate(certificate) => of_certificate(certificate),
        Item::Crl(crl) => of_crl(crl),
        Item::Request(request) => of_request(request),
        Item::PrivateKey(key) => of_key(key),
        Item::PublicKey(algorithm) => vec![kind("public key"), ("key", Cell::text(algorithm))],
        Item::Envelope(envelope) => of_envelope(envelope),
        Item::Pfx => vec![
            kind("PFX (PKCS#12)"),
            (
                "detail",
                Cell::text("not opened; convert it with `openssl pkcs12 -in FILE -nodes -out FILE.pem`"),
            ),
        ],
        Item::Other { label, problem } => {
            let label = if label.is_empty() { "DER" } else { label };
            vec![kind("unknown"), ("detail", Cell::text(format!("{label}: {problem}")))]
        }
    }
}

fn of_certificate(certificate: &Certificate) -> Facts {
    let usages: Vec<String> =
        certificate.extended_key_usages().unwrap_or_default().iter().map(ToString::to_string).collect();
    vec![
        kind("certificate"),
        ("subject", Cell::text(certificate.subject())),
        ("issuer", Cell::text(certificate.issuer())),
        ("serial", Cell::text(certificate.serial_hex())),
        ("not_before", moment(certificate.not_before())),
        ("not_after", moment(certificate.not_after())),
        ("dns_names", list(certificate.dns_names())),
        ("usages", list(&usages)),
        ("ca", Cell::flag(Flag::from(certificate.is_ca()))),
        ("key", Cell::text(certificate.key_algorithm())),
        ("thumbprint", Cell::text(certificate.thumbprint().to_string())),
    ]
}

fn of_crl(crl: &CrlSummary) -> Facts {
    let mut facts = vec![
        kind(if crl.is_delta { "delta CRL" } else { "CRL" }),
        ("issuer", Cell::text(&crl.issuer)),
        ("number", crl.number.as_ref().map_or_else(nothing, Cell::text)),
        ("this_update", moment(crl.this_update)),
        ("next_update", crl.next_update.map_or_else(nothing, moment)),
        ("entries", Cell::number(u64::try_from(crl.entries).unwrap_or(u64::MAX))),
        ("signature", Cell::text(&crl.signature_algorithm)),
    ];
    if crl.is_delta || crl.next_update.is_none() {
        let what = if crl.is_delta { "a delta CRL" } else { "without nextUpdate" };
        facts.push(("detail", Cell::text(format!("{what}: not used by Muster (R5); publish a whole one"))));
    }
    facts
}

fn of_request(request: &RequestSummary) -> Facts {
    vec![
        kind("certificate request"),
        ("subject", Cell::text(&request.subject)),
        ("dns_names", list(&request.dns_names)),
        ("key", Cell::text(&request.key_algorithm)),
        ("signature", Cell::text(&request.signature_algorithm)),
    ]
}

fn of_key(key: &KeySummary) -> Facts {
    vec![
        kind("private key"),
        ("key", key.algorithm.as_ref().map_or_else(nothing, Cell::text)),
        ("detail", Cell::text(key.form)),
    ]
}

fn of_envelope(envelope: &EnvelopeSummary) -> Facts {
    let ours = |oid: &String| {
        let known = ContentType::ALL.into_iter().find(|known| known.oid().to_string() == *oid);
        known.map_or_else(|| oid.clone(), |known| known.name().to_owned())
    };
    vec![
        kind("CMS envelope"),
        ("content_type", envelope.content_type.as_ref().map(ours).map_or_else(nothing, Cell::text)),
        ("detail", Cell::text(&envelope.kind)),
    ]
}

fn kind(name: &str) -> (&'static str, Cell) {
    ("kind", Cell::text(name))
}

fn list(names: &[String]) -> Cell {
    Cell { text: names.join(" "), json: json!(names) }
}

fn moment(time: UnixTime) -> Cell {
    Cell::moment(i64::try_from(time.as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX))
}

/// What an item has nothing to say of.
fn nothing() -> Cell {
    Cell { text: String::new(), json: serde_json::Value::Null }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_pki::authority::Authority;

    use super::*;

    #[test]
    fn a_file_shows_the_columns_that_its_items_have() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_780_272_000));
        let day = |days: u64| Duration::from_secs(days * 86_400);
        let root = Authority::root("Root", day(10), now).unwrap();
        let next = UnixTime::since_unix_epoch(Duration::from_secs(1_780_272_000) + day(1));
        let crl = root.crl(&[], 7, now, next).unwrap();
        let both = [root.certificate_pem(), crl.clone()].concat();
        let shown = |text: &str| table(&muster_pki::describe(text.as_bytes(), "a.pem").unwrap());

        let (crl, both) = (shown(&crl), shown(&both));

        assert_eq!(
            crl.columns(),
            ["kind", "issuer", "number", "this_update", "next_update", "entries", "signature"]
        );
        let row = &crl.objects()[0];
        assert_eq!((&row["kind"], &row["number"], &row["entries"]), (&json!("CRL"), &json!("7"), &json!(0)));
        let rows = both.objects();
        assert_eq!((&rows[0]["subject"], &rows[1]["subject"]), (&json!("CN=Root"), &json!(null)));
        assert_eq!(shown(&root.key_pem()).columns(), ["kind", "key", "detail"]);
    }

    #[test]
    fn our_envelopes_are_told_by_name() {
        let of = |oid: &str| {
            let envelope =
                EnvelopeSummary { kind: "id-signedData".to_owned(), content_type: Some(oid.to_owned()) };
            of_envelope(&envelope)[1].1.text.clone()
        };

        assert_eq!(of(&ContentType::Licence.oid().to_string()), "licence");
        assert_eq!(of("1.2.3"), "1.2.3");
    }
}
