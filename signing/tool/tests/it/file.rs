//! Files signed beside themselves (G10): `openssl cms` and gnutls' `certtool` judge ours, ours judges openssl's.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use muster_pki::{Roots, UnixTime};
use muster_sign::verify_file;
use muster_signing::envelope::{Anchors, Detached};

use crate::authority::{P256, Served, TimestampAuthority, run};
use crate::openssl::{KEYS, openssl, pki};

/// Not text, and not a whole number of anything.
const CONTENT: [u8; 4_099] = [0x5a; 4_099];

const SIGN: &str = "file sign FILE --key leaf.key --cert chain.pem";

#[test]
fn g10_openssl_and_gnutls_verify_ours_beside_the_file_and_refuse_another_file() {
    for (name, key, _) in KEYS {
        let dir = release(key);

        let report = succeed(dir.path(), SIGN);
        let command =
            "cms -verify -binary -inform DER -in FILE.p7s -CAfile root.pem -purpose any -out /dev/null";
        openssl(dir.path(), &format!("{command} -content FILE"));
        openssl(dir.path(), &format!("{command} -cades -content FILE"));
        let certtool = "--p7-verify --inder --infile FILE.p7s --load-ca-certificate root.pem";
        let gnutls = tool("certtool", dir.path(), &format!("{certtool} --load-data FILE"));
        let own = succeed(dir.path(), "file verify FILE --roots root.pem");

        assert!(gnutls.status.success(), "{name}: {gnutls:?}");
        assert_eq!(report["out"], "FILE.p7s");
        assert_eq!((&own["signer"], &own["digest"]), (&report["signer"], &report["digest"]), "{name}");
        assert!(own["root"]["subject"].as_str().unwrap().contains("root"), "{own}");
        assert_eq!((&own["size"], &own["signed_at"]), (&4_099.into(), &report["signed_at"]));
        assert!(own["timestamp"].is_null() && own["timestamp_authority"].is_null(), "{own}");
        for judge in [
            tool("openssl", dir.path(), &format!("{command} -content other")),
            tool("certtool", dir.path(), &format!("{certtool} --load-data other")),
            muster_sign(dir.path(), "file verify other --signature FILE.p7s --roots root.pem"),
        ] {
            assert!(!judge.status.success(), "{name}: {judge:?}");
        }
    }
}

#[test]
fn g10_ours_verifies_openssl_with_the_same_attributes_in_der_and_pem() {
    for (name, key, digest) in KEYS {
        let dir = release(key);
        for (form, signature) in [("DER", "FILE.p7s"), ("PEM", "FILE.pem")] {
            openssl(dir.path(), &format!("{} -md {digest} -outform {form} -out {signature}", by_openssl()));

            let own =
                succeed(dir.path(), &format!("file verify FILE --signature {signature} --roots root.pem"));

            let algorithm = own["digest_algorithm"].as_str().unwrap().replace('-', "").to_ascii_lowercase();
            assert_eq!(algorithm, digest, "{name}");
        }
    }
}

#[test]
fn g10_openssl_with_the_file_inside_another_type_sha1_or_without_the_attributes_is_refused() {
    let dir = release(KEYS[0].1);
    let usual = format!("{} -md sha256 -outform DER -out FILE.p7s", by_openssl());
    for (from, to, words) in [
        ("-cades", "-cades -nodetach", "with the file inside; wanted it detached"),
        (".6 ", ".1 ", "holds a definition; wanted a file's signature"),
        ("-econtent_type 1.3.6.1.3.20263.1.6 ", "", "document of type 1.2.840.113549.1.7.1"),
        ("-md sha256", "-md sha1", "digest algorithm"),
        ("-cades", "", "signingCertificateV2 is missing"),
        ("-cades", "-noattr", "no signed attributes"),
        ("-nosmimecap", "", "which nothing here reads"),
        ("-certfile issuing.pem", "", "certificate refused"),
        ("-certfile issuing.pem", "-certfile both.pem", "which no signer's chain needs"),
        ("-cades", "-cades -keyid", "issuer and serial"),
    ] {
        openssl(dir.path(), &usual.replace(from, to));

        let error = refuse(dir.path(), "file verify FILE --roots root.pem");

        assert!(error.contains(words), "{to}: {error}");
    }
    openssl(dir.path(), &usual);
    succeed(dir.path(), "file verify FILE --roots root.pem");
}

#[test]
fn g10_a_timestamp_comes_in_one_go_or_later_and_the_file_outlives_its_signers_certificate() {
    let dir = release(KEYS[0].1);
    let authority = TimestampAuthority::new(P256);
    std::fs::copy(authority.path("root.pem"), dir.path().join("stamps.pem")).unwrap();
    let served = Served::new(authority, "application/timestamp-reply");
    let verify = "file verify FILE --roots root.pem --timestamp-roots stamps.pem";

    let signed =
        succeed(dir.path(), &format!("{SIGN} --timestamp {} --timestamp-roots stamps.pem", served.url));
    let at_once = succeed(dir.path(), verify);
    let openssl_too = "cms -verify -binary -inform DER -in FILE.p7s -content FILE -CAfile root.pem -purpose any -out /dev/null";
    openssl(dir.path(), openssl_too);
    check_outlives(dir.path());
    succeed(dir.path(), &format!("{SIGN} --replace"));
    let plain = succeed(dir.path(), verify);
    succeed(dir.path(), &format!("timestamp FILE.p7s --url {} --roots stamps.pem", served.url));
    let later = succeed(dir.path(), verify);

    assert!(signed["timestamp"].as_u64().is_some(), "{signed}");
    assert_eq!(at_once["timestamp"], signed["timestamp"]);
    assert_eq!(at_once["timestamp_authority"], signed["timestamp_authority"]);
    assert!(at_once["timestamp_authority"]["subject"].as_str().unwrap().contains("stamps"), "{at_once}");
    assert!(plain["timestamp"].is_null() && later["timestamp"].as_u64().is_some(), "{plain} {later}");
    check_outlives(dir.path());
    let nobody = refuse(dir.path(), "file verify FILE --roots root.pem");
    assert!(nobody.contains("no roots of timestamp authorities"), "{nobody}");
}

#[test]
fn an_authority_that_does_not_answer_leaves_no_signature() {
    let dir = release(KEYS[0].1);
    std::fs::copy(dir.path().join("root.pem"), dir.path().join("stamps.pem")).unwrap();

    let error =
        refuse(dir.path(), &format!("{SIGN} --timestamp http://127.0.0.1:1/ --timestamp-roots stamps.pem"));
    let usage = muster_sign(dir.path(), &format!("{SIGN} --timestamp http://127.0.0.1:1/"));

    assert!(error.contains("timestamp authority http://127.0.0.1:1/"), "{error}");
    assert!(!dir.path().join("FILE.p7s").exists());
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    let usage = String::from_utf8(usage.stderr).unwrap();
    assert!(usage.contains("--timestamp-roots") && usage.contains("--home"), "{usage}");
}

#[test]
fn g10_a_release_of_200_mib_is_signed_and_verified_within_128_mib() {
    let dir = release(KEYS[0].1);
    let file = std::fs::File::create(dir.path().join("FILE")).unwrap();
    file.set_len(200 << 20).unwrap();
    let within = |arguments: &str| {
        let command = format!("ulimit -v 131072 && exec \"$0\" {arguments}");
        let binary = env!("CARGO_BIN_EXE_muster-sign");
        let output = Command::new("sh").args(["-c", &command, binary]).current_dir(dir.path()).output();
        output.unwrap()
    };

    let signed = within(SIGN);
    let verified = within("file verify FILE --roots root.pem");

    assert!(signed.status.success(), "{signed:?}");
    assert!(verified.status.success(), "{verified:?}");
    let size = String::from_utf8(verified.stdout).unwrap();
    assert!(size.contains("size: 209715200"), "{size}");
}

#[test]
fn what_is_no_file_has_no_signature_or_would_be_overwritten_is_told() {
    let dir = release(KEYS[0].1);
    run(dir.path(), &["rand", "-out", "large", "600000"]);
    for (arguments, words) in [
        ("file verify FILE --roots root.pem", "FILE.p7s: not there; `muster-sign file sign FILE` makes it"),
        (
            "file verify FILE --signature large --roots root.pem",
            "600000 bytes; wanted an envelope of at most",
        ),
        ("file verify FILE --signature other --roots root.pem", "neither PEM nor DER"),
        ("file sign . --key leaf.key --cert chain.pem", "not a regular file"),
        ("file sign /dev/zero --key leaf.key --cert chain.pem", "not a regular file"),
        ("file sign none --key leaf.key --cert chain.pem", "none: No such file"),
        (&format!("{SIGN} --out FILE"), "--out FILE: names the file of FILE; wanted a file of its own"),
        ("file sign FILE --key root.key --cert root.pem", "self-signed"),
        ("file sign FILE --key issuing.key --cert issuing.pem", "not for codeSigning"),
    ] {
        let error = refuse(dir.path(), arguments);

        assert!(error.contains(words), "{arguments}: {error}");
    }
    assert_eq!(std::fs::read(dir.path().join("FILE")).unwrap(), CONTENT);
    assert_eq!(muster_sign(dir.path(), "file verify FILE").status.code(), Some(2), "without --roots");
}

/// Verifies, two years after the signer's certificate has ended.
fn check_outlives(dir: &Path) {
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let roots = |file: &str| Roots::from_pem(&read(file), file).unwrap();
    let (signers, stamps) = (roots("root.pem"), roots("stamps.pem"));
    let detached = Detached::read(&read("FILE.p7s")).unwrap();
    let mut digester = detached.digester();
    digester.update(&CONTENT);
    let digest = digester.finish();
    let years = Duration::from_secs(UnixTime::now().as_secs() + 2 * 365 * 86_400);
    let now = UnixTime::since_unix_epoch(years);
    let anchors = Anchors { signers: &signers, timestamps: Some(&stamps) };

    verify_file(&detached, &digest, &anchors, None, now).unwrap();
    verify_file(&detached, &digest, &Anchors::of(&signers), None, now).unwrap_err();
}

fn by_openssl() -> &'static str {
    "cms -sign -cades -nosmimecap -binary -econtent_type 1.3.6.1.3.20263.1.6 -in FILE -signer leaf.pem -inkey leaf.key \
     -certfile issuing.pem"
}

/// A signer by openssl, and files to sign.
fn release(key: &[&str]) -> tempfile::TempDir {
    let dir = pki(key);
    let read = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    std::fs::write(dir.path().join("chain.pem"), [read("leaf.pem"), read("issuing.pem")].concat()).unwrap();
    std::fs::write(dir.path().join("FILE"), CONTENT).unwrap();
    std::fs::write(dir.path().join("other"), &CONTENT[1..]).unwrap();
    dir
}

/// Runs a command that must succeed; its report.
fn succeed(dir: &Path, arguments: &str) -> serde_json::Value {
    let output = muster_sign(dir, &format!("{arguments} -o json"));
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must be refused; its standard error.
fn refuse(dir: &Path, arguments: &str) -> String {
    let output = muster_sign(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn muster_sign(dir: &Path, arguments: &str) -> Output {
    tool(env!("CARGO_BIN_EXE_muster-sign"), dir, arguments)
}

fn tool(program: &str, dir: &Path, arguments: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).current_dir(dir).env_remove("MUSTER_HOME");
    command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; ./test installs it (gnutls-bin, openssl)"))
}
