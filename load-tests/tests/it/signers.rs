//! Who signed what the Switch holds may lose the right to it (G8): by a real CRL, by a certificate that ends. The Switch shows that with the code that
//! devices tell, issues nothing of it, and goes on when the reason has gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use serde_json::{Value, json};

use crate::support::orders::{authority, sign_at, signer_of};
use crate::support::{Place, binary, http, run, sign_definition, system, wait_until, write};

const DEVICE: &str = "web1.example.org";
const NAME: &str = "Acme-Test-Signer";

/// How long the certificate lives that a test sees end: long enough for all that is to be done before.
const SHORT: Duration = Duration::from_secs(40);

#[test]
fn g8_what_a_revoked_author_signed_is_refused_by_switch_and_device_alike_until_the_list_lets_them_go() {
    let place = place_with_lists_of("authors");
    let switch = place.start_switch();
    place.import_all();
    let signed = sign_definition(place.path("").as_path(), NAME, &text(NAME), &place.home());
    import(&place, "definition", &signed);
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    place.muster(["run", NAME, "--wait", "30s"]).with_code(0);
    assert_eq!(shown(&place, NAME)["state"], "ready");
    client.stop();
    let queued = place.muster(["run", NAME, "--wait", "1s", "-o", "json"]).with_code(3).json();
    let id = queued["instruction"].as_str().expect("an id");

    place.muster(["pki", "revoke", "publisher", "--role", "author"]).with_code(0);

    until_state(&place, NAME, "SIGNER_REVOKED");
    let problem = shown(&place, NAME)["problem"].as_str().expect("a text").to_owned();
    assert!(problem.contains("CN=publisher") && problem.contains("a certificate that counts"), "{problem}");
    let listed = place.muster(["definition", "list", "-o", "json"]).with_code(0).json();
    let listed = listed.as_array().expect("a list");
    assert!(
        listed.iter().all(|one| one["state"] == "SIGNER_REVOKED" && one["licensed"] == true),
        "{listed:?}"
    );
    let refused = place.muster(["run", NAME]).with_code(4);
    refused.naming(&["cannot be issued: SIGNER_REVOKED", "a certificate that counts"]);
    let doctor = place.muster(["doctor"]);
    assert!(doctor.out.contains("licensed definitions cannot be issued"), "{}", doctor.out);
    // A device finds the same of what was on its way.
    let client = place.start_client(DEVICE);
    wait_until("the device's refusal", || show(&place, id)["complete"] == true);
    let results = place.muster(["instruction", "results", id, "-o", "wide"]).with_code(0);
    assert!(format!("{}{}", results.out, results.err).contains("SIGNER_REVOKED"), "{results:?}");
    let targets = place.muster(["instruction", "targets", id, "-o", "json"]).with_code(0).json();
    assert_eq!(
        (&targets[0]["state"], &targets[0]["cause"]),
        (&json!("refused"), &json!("result")),
        "{targets}"
    );
    client.stop();

    // The CA takes it off its list again.
    put_list(&place, "authors", 1_000);

    until_state(&place, NAME, "ready");
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    place.muster(["run", NAME, "--wait", "30s"]).with_code(0);
    for service in [client, switch] {
        service.stop();
    }
}

#[test]
fn g8_with_its_authors_certificate_a_definition_ends_unless_a_timestamp_proves_when_it_was_signed() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config(&format!("timestamps = {:?}", place.home().join("trust/timestamps.pem")));
    place.client_config_to(DEVICE, place.ports.sessions, "");
    let stamps = place.home().join("trust/timestamps.pem");
    let config = place.path(&format!("{DEVICE}.toml"));
    let with_stamps = std::fs::read_to_string(&config).expect("the configuration");
    write(&config, &with_stamps.replace("[trust]\n", &format!("[trust]\ntimestamps = {stamps:?}\n")));
    place.add_context();
    let (_switch, _client) = (place.start_switch(), place.start_client(DEVICE));
    place.import_licence();
    let answers = stamp_authority(&place);
    let author = short_lived(&authority(&place, "authors"));
    import(&place, "licence", &licence_for(&place, &author));
    let (plain, stamped) = ("Acme-Test-Plain", "Acme-Test-Stamped");
    for name in [plain, stamped] {
        let signed = sign_at(text(name).as_bytes(), ContentType::Definition, &author, UnixTime::now());
        let file = place.path(&format!("{name}.cms"));
        std::fs::write(&file, signed).expect("a file");
        if name == stamped {
            stamp(&place, &answers, &file);
        }
        import(&place, "definition", &file);
    }
    place.wait_online(DEVICE);
    for name in [plain, stamped] {
        place.muster(["run", name, "--wait", "30s"]).with_code(0);
    }

    until_state(&place, plain, "UNTRUSTED_SIGNER");

    place.muster(["run", plain]).with_code(4).naming(&["cannot be issued: UNTRUSTED_SIGNER", "C9"]);
    assert_eq!(shown(&place, stamped)["state"], "ready");
    place.muster(["run", stamped, "--wait", "30s"]).with_code(0);
}

#[test]
fn g8_under_a_licence_whose_signer_is_revoked_nothing_is_issued_and_everybody_who_looks_is_told() {
    let place = place_with_lists_of("licences");
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    place.ask("SELECT name FROM os", 0);
    client.stop();

    place.muster(["pki", "revoke", "licensor", "--role", "licensor"]).with_code(0);

    until_state(&place, "Muster-Core-Query", "SIGNER_REVOKED");
    place.muster(["ask", "SELECT name FROM os"]).with_code(4).naming(&["SIGNER_REVOKED: licence: "]);
    place.muster(["licence", "show"]).naming(&["nothing can be issued under it", "SIGNER_REVOKED"]);
    let doctor = place.muster(["doctor"]);
    assert!(doctor.code != 0 && doctor.out.contains("SIGNER_REVOKED"), "{doctor:?}");
    wait_until("readiness", || http(place.ports.admin, "/readyz").contains("SIGNER_REVOKED"));

    put_list(&place, "licences", 1_000);

    until_state(&place, "Muster-Core-Query", "ready");
    wait_until("readiness", || !http(place.ports.admin, "/readyz").contains("SIGNER_REVOKED"));
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    place.ask("SELECT name FROM os", 0);
    for service in [client, switch] {
        service.stop();
    }
}

#[test]
fn g1_what_the_switch_refused_by_itself_is_told_where_an_instruction_is_shown() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.add_context();
    let _switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    client.stop();
    let asked =
        place.muster(["ask", "SELECT name FROM os", "--wait", "1s", "-o", "json"]).with_code(3).json();
    let id = asked["instruction"].as_str().expect("an id");
    let without = changed_licence(&place, |terms| drop(terms.prefixes.remove("Muster")));

    import(&place, "licence", &without);

    // The home's own licence says the same from now on.
    let mut verify = binary("muster-sign");
    verify.args(["definition", "verify"]).arg(place.home().join("definitions/Muster-Core-Query.cms"));
    let verified = run(verify.arg("--home").arg(place.home())).with_code(1);
    assert!(verified.out.contains("UNLICENSED"), "{verified:?}");
    let shown = show(&place, id);
    assert_eq!(
        (&shown["states"], &shown["refused_by_switch"]),
        (&json!({ "refused": 1 }), &json!({ "UNLICENSED": 1 }))
    );
    let words = ["instruction", "targets", id, "--state", "refused", "-o", "json"];
    let targets = place.muster(words).with_code(0).json();
    let [target] = &targets.as_array().expect("a list")[..] else { panic!("{targets}") };
    assert_eq!((&target["device"], &target["cause"]), (&json!(DEVICE), &json!("UNLICENSED")), "{target}");
    place.muster(["instruction", "targets", id, "--state", "lost"]).with_code(2).naming(&["queued, sent"]);
}

fn text(name: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Is anybody there?\"\n\n\
         [[step]]\nquery = \"SELECT 1 AS one\"\n\n[[result]]\nname = \"one\"\ntype = \"integer\"\n"
    )
}

/// A place whose Switch and client read the lists of one role's CAs from the home.
fn place_with_lists_of(folder: &str) -> Place {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    let lists = ["crl.pem", "root-crl.pem"].map(|file| place.home().join("pki").join(folder).join(file));
    for name in ["switch", DEVICE] {
        let path = place.path(&format!("{name}.toml"));
        let config = std::fs::read_to_string(&path).expect("the configuration");
        write(&path, &format!("crls = {lists:?}\n{config}"));
    }
    place.add_context();
    place
}

/// Puts a list without entries in the place of a role's.
fn put_list(place: &Place, folder: &str, number: u64) {
    let (ca, now) = (authority(place, folder), UnixTime::now());
    let crl = ca.crl(&[], number, now, after(now, Duration::from_secs(86_400))).expect("a list");
    let path = place.home().join("pki").join(folder).join("crl.pem");
    let new = path.with_extension("new");
    write(&new, &(crl + &ca.certificate_pem()));
    std::fs::rename(new, path).expect("the list");
}

/// An author whose certificate is about to end.
fn short_lived(ca: &Authority) -> Signer {
    let now = UnixTime::now();
    let issued = ca.issue(&Request {
        common_name: "short".to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role: Role::Author,
        not_before: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 60)),
        not_after: after(now, SHORT),
        crl_url: Some("http://localhost/crl".to_owned()),
    });
    let issued = issued.expect("a certificate");
    Signer::from_pem(&issued.chain_pem, &issued.key_pem).expect("a signer")
}

/// The home's licence, under the next serial, that admits this author, too.
fn licence_for(place: &Place, author: &Signer) -> PathBuf {
    let thumbprint = author.certificate().expect("a certificate").thumbprint();
    changed_licence(place, |terms| {
        terms.prefixes.entry("Acme".to_owned()).or_default().insert(thumbprint);
    })
}

/// The home's licence, under the next serial, with a change.
fn changed_licence(place: &Place, change: impl FnOnce(&mut Terms)) -> PathBuf {
    let held = std::fs::read(place.home().join("licence.cms")).expect("the licence");
    let content = envelope::inspect(&held).expect("a licence").content;
    let held = Licence::parse(&String::from_utf8(content).expect("a text")).expect("a licence");
    let mut terms = held.terms().clone();
    terms.serial += 1;
    change(&mut terms);
    let text = Licence::new(terms).and_then(|licence| licence.to_text()).expect("a licence");
    let licensor = signer_of(&place.home(), "licensor/cert.pem", "licensor/key.pem");
    let path = place.path("licence.cms");
    let envelope = sign_at(text.as_bytes(), ContentType::Licence, &licensor, UnixTime::now());
    std::fs::write(&path, envelope).expect("a file");
    path
}

/// Makes a timestamp authority of the home's CA, as `openssl ts` is one; returns its configuration.
fn stamp_authority(place: &Place) -> String {
    place.issue(&["stamps", "--role", "timestamp"]);
    let (certs, folder) = (place.path("certs"), place.path("stamps"));
    let issuing = place.home().join("pki/timestamps/issuing.pem");
    write(&folder.join("serial"), "01\n");
    let config = folder.join("ts.cnf");
    let text = format!(
        "[tsa]\ndefault_tsa = it\n[it]\nserial = {}/serial\nsigner_cert = {certs}/stamps.pem\nsigner_key = {certs}/stamps.key\n\
         certs = {}\nsigner_digest = sha256\ndefault_policy = 1.3.6.1.3.20263.9\ndigests = sha256\ness_cert_id_alg = sha256\n\
         tsa_name = yes\n",
        folder.display(),
        issuing.display(),
        certs = certs.display()
    );
    write(&config, &text);
    config.display().to_string()
}

/// Puts a timestamp of now beside a file's signature.
fn stamp(place: &Place, config: &str, file: &Path) {
    let (query, answer) = (file.with_extension("tsq"), file.with_extension("tsr"));
    let sign = |more: &[(&str, &Path)]| {
        let mut command = binary("muster-sign");
        command.arg("timestamp").arg(file).arg("--home").arg(place.home());
        for (flag, path) in more {
            command.arg(flag).arg(path);
        }
        run(&mut command).with_code(0);
    };
    sign(&[("--request", &query)]);
    let (asked, said) = (query.display().to_string(), answer.display().to_string());
    system("openssl", &["ts", "-reply", "-config", config, "-queryfile", &asked, "-out", &said]);
    sign(&[("--request", &query), ("--answer", &answer)]);
}

#[track_caller]
fn import(place: &Place, what: &str, file: &Path) {
    run(place.command().args([what, "import"]).arg(file)).with_code(0);
}

#[track_caller]
fn until_state(place: &Place, name: &str, state: &str) {
    wait_until(&format!("{name} to be {state}"), || shown(place, name)["state"] == state);
}

#[track_caller]
fn shown(place: &Place, name: &str) -> Value {
    let listed = place.muster(["definition", "list", "-o", "json"]).with_code(0).json();
    let found = listed.as_array().and_then(|all| all.iter().find(|one| one["name"] == name).cloned());
    found.unwrap_or_else(|| panic!("no {name}: {listed}"))
}

#[track_caller]
fn show(place: &Place, id: &str) -> Value {
    place.muster(["instruction", "show", id, "-o", "json"]).with_code(0).json()
}

fn after(now: UnixTime, time: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + time)
}
