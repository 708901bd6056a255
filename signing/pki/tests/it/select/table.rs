//! The golden tables: store × configuration => choice and reasons.

use std::collections::BTreeMap;

use muster_pki::select::{
    Candidate, MachineNames, Missing, PinFate, PinProblem, PinRecord, PrivateKey, Purpose, Question, Report,
    SelectionSettings, ServerCertificate, ServerCertificates, Standing, Step, Successor, Unfit, Why, select,
    select_server,
};
use muster_pki::{Certificate, Thumbprint};
use rcgen::ExtendedKeyUsagePurpose;

use super::lab::{LAB, Spec, selection, store};
use crate::support::{DAY, NOW, now};

/// `rule and case | store | configuration | expected`.
///
/// Store: `LETTER=ISSUER/NAME/DAYS`, with faults behind it: `!eku` serverAuth, `!noeku`, `!nokey`, `!foreign` key, `!self`
/// signed, `!ca`, `!revoked`, `!caRevoked`, `!future`, `!cn` no SAN, `!san` no subject. `DAYS` may be `0` (expires this second),
/// `-1s`; `+0s` begins this second. Expected: the chosen one and what decided, then the others in store order: `b<step`
/// lost by the step, `b:C9` is unfit by the rule. `-` is 0x209A.
const CLIENTS: &str = "
S1 issuer before all else            | a=globex/w701.acme.local/90 b=acme/w701/10           | issuer=acme                      | b issuer a<issuer
S1 issuer of two listed              | a=globex/w701/90 b=acme/w701/10 c=acme2/w701/5       | issuer=two,globex                | a expiry b<issuer c<expiry
S1 a common substring of two         | a=globex/w701/90 b=acme/w701/10 c=acme2/w701/20      | issuer=acme                      | c expiry a<issuer b<expiry
S1 all of one issuer: subject        | a=acme/w701.acme.local/90 b=acme/kiosk/10            | issuer=acme subject=kiosk        | b subject a<subject
S1 subject before FQDN and expiry    | a=acme/w701.acme.local/90 b=acme/kiosk/10            | subject=kiosk                    | b subject a<subject
S1 issuer before subject             | a=acme/w701/10 b=globex/kiosk/90                     | issuer=acme subject=kiosk        | a issuer b<issuer
S1 FQDN before expiry                | a=acme/w701/90 b=acme/w701.acme.local/10             | -                                | b fqdn a<fqdn
S1 both FQDN: expiry                 | a=acme/w701.acme.local/10 b=acme/k.acme.local/90     | -                                | b expiry a<expiry
S1 latest expiry                     | a=acme/w701/10 b=acme/w701/90 c=acme/w701/50         | -                                | b expiry a<expiry c<expiry
S1 each loser has its own step       | a=acme/w701/90 b=acme/w701.acme.local/10 c=acme/k.acme.local/5 | subject=w701           | b fqdn a<fqdn c<subject
S1 tie: store order                  | a=acme/w701/10 b=acme/w701/10                        | -                                | a order b<order
S1 tie: store order, turned round    | b=acme/w701/10 a=acme/w701/10                        | -                                | b order a<order
S1 an address is no FQDN             | a=acme/10.0.0.1/90 b=acme/w701.acme.local/10         | -                                | b fqdn a<fqdn
S1 the FQDN of a CN without SAN      | a=acme/w701/90 b=acme/w701.acme.local/10!cn          | -                                | b fqdn a<fqdn
S1 the FQDN of a SAN without subject | a=acme/w701/90 b=acme/w701.acme.local/10!san         | -                                | b fqdn a<fqdn
S2 the only one                      | a=acme/w701/10                                       | -                                | a only
S2 an empty store                    |                                                      | -                                | -
S2 without clientAuth                | a=acme/w701.acme.local/90!eku b=acme/w701/10         | -                                | b only a:C3
S2 without any purpose               | a=acme/w701.acme.local/90!noeku b=acme/w701/10       | -                                | b only a:C3
S2 expired a second ago              | a=acme/w701.acme.local/-1s b=acme/w701/10            | -                                | b only a:C9
S2 expires this second               | a=acme/w701.acme.local/0 b=acme/w701/10              | -                                | a fqdn b<fqdn
S2 not yet valid                     | a=acme/w701.acme.local/90!future b=acme/w701/10      | -                                | b only a:C9
S2 valid from this second            | a=acme/w701.acme.local/90+0s b=acme/w701/10          | -                                | a fqdn b<fqdn
S2 no private key                    | a=acme/w701.acme.local/90!nokey b=acme/w701/10       | -                                | b only a:C5
S2 another's private key             | a=acme/w701.acme.local/90!foreign b=acme/w701/10     | -                                | b only a:C5
S2 self-signed                       | a=acme/w701.acme.local/90!self b=acme/w701/10        | -                                | b only a:C8
S2 a CA as a leaf                    | a=acme/w701.acme.local/90!ca b=acme/w701/10          | -                                | b only a:C8
S2 all faults are told               | a=acme/w701/-5!eku!nokey!self                        | -                                | - a:C3,C9,C5,C8
S2 unfit though preferred            | a=acme/kiosk.acme.local/90!nokey b=globex/w701/1     | subject=kiosk                    | b only a:C5
S4 revoked                           | a=acme/w701.acme.local/90!revoked b=acme/w701/10     | -                                | b only a:R2
S4 below a revoked CA                | a=acme/w701.acme.local/90!caRevoked b=globex/w701/10 | -                                | b only a:R8
S3 nothing matches: missing          | a=globex/w701.acme.local/90 b=globex/w701/10         | issuer=acme                      | - a:S3 b:S3
S3 what matches is unfit: missing    | a=acme/w701/-5 b=globex/w701/10                      | issuer=acme                      | - a:C9 b:S3
S3 without regard to case            | a=globex/w701/90 b=acme/w701/10                      | issuer=aCMe                      | b issuer a<issuer
S3 the type before a name is no name | a=globex/w701/90                                     | issuer=cn                        | - a:S3
S3 a name with its type              | a=globex/w701/90 b=acme/w701/10                      | issuer=CN=Acme                   | b issuer a<issuer
S3 subject is a preference only      | a=acme/w701/10 b=acme/w701/90                        | subject=nobody                   | b expiry a<expiry
S3 subject in a SAN                  | a=acme/w701.acme.local/90 b=acme/kiosk/10!san        | subject=KIOSK                    | b subject a<subject
S3 one of several subjects           | a=acme/w701/90 b=acme/kiosk/10                       | subject=nobody,kiosk             | b subject a<subject
S5 pinned, Background Channel        | a=acme/w701.acme.local/90 b=globex/w701/10           | pin=b for=bc                     | b pin a<pin ; taken
S5 pinned, against the issuer        | a=acme/w701.acme.local/90 b=globex/w701/10           | pin=b for=bc issuer=acme         | b pin a<pin ; taken
S5 pinned, Switch, nothing else set  | a=acme/w701.acme.local/90 b=globex/w701/10           | pin=b for=switch                 | b pin a<pin ; taken
S5 pinned, Switch, issuer set        | a=acme/w701.acme.local/90 b=globex/w701/10           | pin=b for=switch issuer=acme     | a issuer b<issuer ; not consulted
S5 pinned, Switch, subject set       | a=acme/w701.acme.local/90 b=globex/w701/10           | pin=b for=switch subject=w7      | a fqdn b<fqdn ; not consulted
S5 pinned by SHA-1                   | a=acme/w701.acme.local/90 b=globex/w701/10           | sha1=b for=bc                    | b pin a<pin ; taken
S5 pinned without key: normal        | a=acme/w701/10 b=globex/w701/90!nokey                | pin=b for=bc                     | a only b:C5 ; C5, no successor
S5 pinned, self-signed: normal       | a=acme/w701/10 b=globex/w701/90!self                 | pin=b for=bc                     | a only b:C8 ; C8, no successor
S5 pinned, invalid: missing by S3    | a=globex/w701/10 b=globex/kiosk/-5                   | pin=b for=bc issuer=acme         | - a:S3 b:C9 ; C9, no successor
N2 expired: the successor            | a=acme/w701.acme.local/90 b=acme/w701/-5 c=acme/w701/10 | pin=b for=bc                  | c successor-of-b a<successor-of-b b:C9 ; C9, followed c
N2 expired: the latest successor     | a=acme/w701/20 b=acme/w701/-5 c=acme/w701/10         | pin=b for=bc                     | a successor-of-b b:C9 c<successor-of-b ; C9, followed a
N2 revoked: the successor            | a=acme/w701.acme.local/90 b=acme/w701/5!revoked c=acme/w701/10 | pin=b for=bc           | c successor-of-b a<successor-of-b b:R2 ; R2, followed c
N2 archived: the successor           | a=acme/w701.acme.local/90 c=acme/w701/10             | pin=b seen=acme/w701/-5 for=bc   | c successor-of-b a<successor-of-b ; absent, followed c
N2 archived and never seen           | a=acme/w701.acme.local/90 c=acme/w701/10             | pin=b for=bc                     | a fqdn c<fqdn ; absent, unknown
N2 follow_successor = false          | a=acme/w701.acme.local/90 b=acme/w701/-5 c=acme/w701/10 | pin=b for=bc follow=no        | a fqdn b:C9 c<fqdn ; C9, not allowed
N2 another subject is no successor   | b=acme/w701/-5 c=acme/w702/10                        | pin=b for=bc                     | c only b:C9 ; C9, no successor
N2 another issuer is no successor    | b=acme/w701/-5 c=acme2/w701/10                       | pin=b for=bc                     | c only b:C9 ; C9, no successor
N2 another purpose is no successor   | b=acme/w701/-5 c=acme/w701/10!both                   | pin=b for=bc                     | c only b:C9 ; C9, no successor
N2 an earlier end is no successor    | b=acme/w701/30!revoked c=acme/w701/10                | pin=b for=bc                     | c only b:R2 ; R2, no successor
N2 an unfit successor is none        | b=acme/w701/-5 c=acme/w701/10!nokey d=acme/w702/5    | pin=b for=bc                     | d only b:C9 c:C5 ; C9, no successor
N2 empty subjects: the SAN counts    | b=acme/w701/-5!san c=acme/w702/20!san d=acme/w701/10!san | pin=b for=bc                 | d successor-of-b b:C9 c<successor-of-b ; C9, followed d
N2 the Switch follows too            | b=acme/w701/-5 c=acme/w701/10 d=acme/w701.acme.local/90 | pin=b for=switch              | c successor-of-b b:C9 d<successor-of-b ; C9, followed c
N2 against the issuer, as the pin    | b=acme/w701/-5 c=acme/w701/10 d=globex/w701/90       | pin=b for=bc issuer=globex       | c successor-of-b b:C9 d<successor-of-b ; C9, followed c
";

/// `case | store | configuration | expected`, on the machine `w701`, `w701.acme.local`. Store: `LETTER=ISSUER/NAMES/DAYS` with
/// SAN dNSNames separated by commas; `!cn`: the first is the CN and there is no SAN.
const SERVERS: &str = "
S7 both names before the host name   | a=acme/w701/90 b=acme/w701,w701.acme.local/10        | -                                | b name a<name
S7 both names before the FQDN        | a=acme/w701.acme.local/90 b=acme/w701.acme.local,w701/10 | -                            | b name a<name
S7 the host name before the FQDN     | a=acme/w701.acme.local/90 b=acme/w701/10             | -                                | b name a<name
S7 longest validity                  | a=acme/w701/10 b=acme/w701/90                        | -                                | b validity a<validity
S7 tie: store order                  | a=acme/w701/10 b=acme/w701/10                        | -                                | a order b<order
S7 without regard to case            | a=acme/W701.ACME.Local/10                            | -                                | a only
S7 another's name                    | a=acme/w702.acme.local,w702/90 b=acme/w701/10        | -                                | b only a:S7
S7 one name among others             | a=acme/w702,w701/90                                  | -                                | a only
S7 a name that begins the same       | a=acme/w7011/90                                      | -                                | - a:S7
S7 the CN where there is no SAN      | a=acme/w701/10!cn                                    | -                                | a only
S7 a wildcard stands for the FQDN    | a=acme/*.acme.local/90 b=acme/w701/10                | -                                | b name a<name
S7 without serverAuth                | a=acme/w701/90!client b=acme/w701/10                 | -                                | b only a:C3
S7 expired                           | a=acme/w701/-1s b=acme/w701/10                       | -                                | b only a:C9
S7 not yet valid                     | a=acme/w701/90!future b=acme/w701/10                 | -                                | b only a:C9
S7 issuer in cert_issuer             | a=globex/w701,w701.acme.local/90 b=acme/w701/10      | issuer=acme                      | b only a:S3
S7 no issuer in cert_issuer          | a=globex/w701/90                                     | issuer=acme                      | - a:S3
S7 never self-signed                 | a=acme/w701/90!self                                  | -                                | - a:C8
S7 no private key                    | a=acme/w701/90!nokey                                 | -                                | - a:C5
S7 revoked                           | a=acme/w701,w701.acme.local/90!revoked b=acme/w701/9 | -                                | b only a:R2
S7 cert_subject does not matter      | a=acme/w701/10 b=acme/w701/90                        | subject=nobody                   | b validity a<validity
S7 a thumbprint does not matter      | a=acme/w701/10 b=acme/w701/90                        | pin=a                            | b validity a<validity
S7 all faults are told               | a=globex/w702/-5!client!nokey                        | issuer=acme                      | - a:C3,C9,C5,S7,S3
S7 an empty store                    |                                                      | -                                | -
";

#[test]
fn s1_s2_s3_s5_n2_the_clients_table() {
    let rows = rows(CLIENTS);

    let wrong: Vec<String> = rows.iter().filter_map(|row| row.mismatch(client_answer)).collect();

    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(rows.len() >= 40, "{} rows", rows.len());
}

#[test]
fn s7_the_servers_table() {
    let wrong: Vec<String> = rows(SERVERS).iter().filter_map(|row| row.mismatch(server_answer)).collect();

    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// One line of a table.
struct Case {
    name: &'static str,
    store: Vec<(char, Candidate)>,
    revoked: Vec<Certificate>,
    revoked_authorities: Vec<String>,
    settings: BTreeMap<&'static str, &'static str>,
    expected: &'static str,
}

fn rows(table: &'static str) -> Vec<Case> {
    let is_servers = std::ptr::eq(table, SERVERS);
    table.lines().filter(|line| !line.trim().is_empty()).map(|line| Case::read(line, is_servers)).collect()
}

impl Case {
    fn read(line: &'static str, is_servers: bool) -> Self {
        let [name, certificates, settings, expected] =
            line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let settings = settings.split(' ').filter_map(|setting| setting.split_once('=')).collect();
        let (store, revoked, revoked_authorities) = (Vec::new(), Vec::new(), Vec::new());
        let mut case = Self { name, store, revoked, revoked_authorities, settings, expected };
        for entry in certificates.split_whitespace() {
            let (letter, text) = entry.split_once('=').unwrap();
            let candidate = spec(text, is_servers).candidate(&format!("{letter}.pem"));
            if text.contains("!revoked") {
                case.revoked.push(candidate.certificate().clone());
            }
            if text.contains("!caRevoked") {
                case.revoked_authorities.push(text.split('/').next().unwrap().to_owned());
            }
            case.store.push((letter.chars().next().unwrap(), candidate));
        }
        case
    }

    fn mismatch(&self, answer: fn(&Self) -> String) -> Option<String> {
        let got = answer(self);
        (got != self.expected).then(|| format!("{}\n  wanted {}\n  got    {got}", self.name, self.expected))
    }

    fn revocation(&self) -> muster_pki::RevocationIndex {
        let authorities: Vec<&str> = self.revoked_authorities.iter().map(String::as_str).collect();
        LAB.revoke(&self.revoked.iter().collect::<Vec<_>>(), &authorities)
    }

    fn settings(&self, seen: Option<&Certificate>) -> SelectionSettings {
        let text = |key| (*self.settings.get(key).unwrap_or(&"")).to_owned();
        let named = |letter: &str| {
            let found = self.store.iter().find(|(known, _)| letter.starts_with(*known));
            found.map(|(_, candidate)| candidate.certificate()).or(seen)
        };
        let mut settings = SelectionSettings {
            cert_issuer: text("issuer"),
            cert_subject: text("subject"),
            follow_successor: text("follow") != "no",
            ..SelectionSettings::default()
        };
        if let Some(letter) = self.settings.get("pin") {
            // A pinned certificate that is nowhere has some thumbprint.
            let thumbprint = named(letter).map_or_else(|| Thumbprint::of(b"gone"), Certificate::thumbprint);
            settings.thumbprint = thumbprint.to_string();
        }
        if let Some(letter) = self.settings.get("sha1") {
            let der = named(letter).unwrap().der();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
            settings.thumbprint = hex::encode_upper(digest);
        }
        settings
    }

    fn letter(&self, thumbprint: Thumbprint) -> String {
        let found = self.store.iter().find(|(_, one)| one.certificate().thumbprint() == thumbprint);
        // Only a remembered certificate is not in the store: the pinned one.
        found.map_or_else(|| self.settings["pin"].to_owned(), |(letter, _)| letter.to_string())
    }

    fn report(&self, report: &Report) -> String {
        let mut chosen = "-".to_owned();
        let mut others = String::new();
        for ((letter, _), row) in self.store.iter().zip(report.rows()) {
            match row.standing() {
                Standing::Chosen(why) => chosen = format!("{letter} {}", self.why(*why)),
                Standing::Outranked(why) => others += &format!(" {letter}<{}", self.why(*why)),
                Standing::Unfit(reasons) => others += &format!(" {letter}:{}", rules(reasons)),
            }
        }
        let pin = report.pin().map(|pin| format!(" ; {}", self.pin(pin))).unwrap_or_default();
        chosen + &others + &pin
    }

    fn why(&self, why: Why) -> String {
        match why {
            Why::OnlyOne => "only".to_owned(),
            Why::Preferred(step) => step_name(step).to_owned(),
            Why::Pinned => "pin".to_owned(),
            Why::Successor { of } => format!("successor-of-{}", self.letter(of)),
            Why::Kept => "kept".to_owned(),
        }
    }

    fn pin(&self, pin: &PinRecord) -> String {
        match pin.fate() {
            PinFate::Taken => "taken".to_owned(),
            PinFate::NotConsulted => "not consulted".to_owned(),
            PinFate::Invalid { problem, successor } => {
                let problem = match problem {
                    PinProblem::Absent => "absent".to_owned(),
                    PinProblem::Unfit(reasons) => rules(reasons),
                };
                let successor = match successor {
                    Successor::Followed(thumbprint) => format!("followed {}", self.letter(*thumbprint)),
                    Successor::NotFound => "no successor".to_owned(),
                    Successor::NotAllowed => "not allowed".to_owned(),
                    Successor::Unknown => "unknown".to_owned(),
                };
                format!("{problem}, {successor}")
            }
        }
    }
}

fn client_answer(case: &Case) -> String {
    let seen = case.settings.get("seen").map(|text| spec(text, false).candidate("archived"));
    let seen = seen.as_ref().map(Candidate::certificate);
    let purpose = match case.settings.get("for") {
        Some(&"bc") => Purpose::BackgroundChannel,
        Some(&"switch") | None => Purpose::Switch,
        Some(other) => panic!("{other}"),
    };
    let revocation = case.revocation();
    let question = Question { purpose, now: now(), revocation: Some(&revocation), remembered: seen };
    let candidates = store(case.store.iter().map(|(_, candidate)| candidate));
    match select(&candidates, &selection(case.settings(seen)), &question) {
        Ok(choice) => {
            assert_eq!(candidates.iter().nth(choice.position()), Some(choice.candidate()), "{}", case.name);
            case.report(choice.report())
        }
        Err(missing) => {
            assert_eq!(missing.code().value(), 0x209A);
            case.report(Missing::report(&missing))
        }
    }
}

fn server_answer(case: &Case) -> String {
    let machine = MachineNames { host: "w701", full: "w701.acme.local" };
    let candidates = store(case.store.iter().map(|(_, candidate)| candidate));
    let selection = selection(case.settings(None));
    let revocation = case.revocation();
    let pki = ServerCertificates::Pki;
    match select_server(pki, &candidates, &selection, machine, now(), Some(&revocation)) {
        Ok(ServerCertificate::Pki(choice)) => case.report(choice.report()),
        Ok(ServerCertificate::SelfSigned) => "self-signed".to_owned(),
        Err(missing) => case.report(missing.report()),
    }
}

fn spec(text: &str, is_server: bool) -> Spec {
    let [issuer, name, rest] = text.split('/').collect::<Vec<_>>().try_into().unwrap();
    let end = rest.find(['!', '+']).unwrap_or(rest.len());
    let (days, faults) = rest.split_at(end);
    let names: Vec<&str> = name.split(',').collect();
    let mut spec = Spec::server(names[0], &names, 0);
    issuer.clone_into(&mut spec.issuer);
    if !is_server {
        spec.usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    spec.not_after = match days {
        "-1s" => NOW - 1,
        days => NOW.checked_add_signed(days.parse::<i64>().unwrap() * DAY.cast_signed()).unwrap(),
    };
    for fault in faults.split('!').filter(|fault| !fault.is_empty()) {
        match fault {
            "eku" => spec.usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "client" => spec.usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "both" => spec.usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            "noeku" => spec.usages.clear(),
            "nokey" => spec.key = PrivateKey::Missing,
            "foreign" => spec.key = PrivateKey::Foreign,
            "self" => spec.is_self_signed = true,
            "ca" => spec.is_ca = true,
            "future" => spec.not_before = NOW + 1,
            "+0s" => spec.not_before = NOW,
            "cn" => spec.dns_names.clear(),
            "san" => spec.common_name.clear(),
            "revoked" | "caRevoked" => {}
            other => panic!("{other}"),
        }
    }
    spec
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Issuer => "issuer",
        Step::Subject => "subject",
        Step::FullName => "fqdn",
        Step::Expiry => "expiry",
        Step::ServerName => "name",
        Step::Validity => "validity",
        Step::StoreOrder => "order",
    }
}

fn rules(reasons: &[Unfit]) -> String {
    reasons.iter().map(Unfit::rule).collect::<Vec<_>>().join(",")
}
