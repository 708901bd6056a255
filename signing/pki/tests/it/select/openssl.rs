//! What the `openssl` command line prints goes into the configuration as it is (N5, S3).

use std::path::Path;
use std::process::Command;

use muster_pki::select::{
    Candidate, Candidates, PrivateKey, Purpose, Question, SelectionSettings, Step, Why, select,
};
use muster_pki::{Certificate, UnixTime, pem};

use super::lab::selection;
use crate::support::at;

#[test]
fn n5_takes_a_fingerprint_as_openssl_prints_it_and_s3_an_issuer() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "ca", &["-subj", "/O=Äcme GmbH/CN=Issuing \"One\" <01>", "-utf8"]);
    make(folder.path(), "other", &["-subj", "/O=Globex/CN=Issuing"]);
    let leaf = |name: &str, issuer: &str| {
        let (certificate, key) = (file(folder.path(), issuer, "pem"), file(folder.path(), issuer, "key"));
        let extensions = ["-subj", "/CN=w701", "-addext", "extendedKeyUsage=clientAuth"];
        let constraints = ["-addext", "basicConstraints=critical,CA:FALSE"];
        make(
            folder.path(),
            name,
            &[&extensions[..], &constraints[..], &["-CA", &certificate, "-CAkey", &key]].concat(),
        );
        Candidate::new(read(folder.path(), name), Vec::new(), PrivateKey::Present, name)
    };
    let candidates: Candidates = [leaf("a", "other"), leaf("b", "ca")].into_iter().collect();
    let now = candidates.iter().map(|one| one.certificate().not_before()).max().unwrap();

    for digest in ["-sha1", "-sha256"] {
        let printed = openssl(folder.path(), &["x509", "-in", "b.pem", "-noout", "-fingerprint", digest]);
        let thumbprint = printed.split_once('=').unwrap().1.to_owned();
        let settings = SelectionSettings { thumbprint, ..SelectionSettings::default() };

        assert_eq!(chosen(&candidates, settings, now), ("b".to_owned(), Why::Pinned), "{digest}");
    }
    for part in ["äCME", "issuing \"one\" <01>", "O = Äcme", "O=äcme gmbh", "CN = Issuing"] {
        let settings = SelectionSettings { cert_issuer: part.to_owned(), ..SelectionSettings::default() };
        let (name, why) = chosen(&candidates, settings, now);

        let is_shared = part == "CN = Issuing";
        assert_eq!(name == "b" && why == Why::Preferred(Step::Issuer), !is_shared, "{part}: {name} {why}");
    }
}

fn chosen(candidates: &Candidates, settings: SelectionSettings, now: UnixTime) -> (String, Why) {
    let now = at(now.as_secs() + 1);
    let choice =
        select(candidates, &selection(settings), &Question::at(Purpose::BackgroundChannel, now)).unwrap();
    (choice.candidate().source().to_owned(), choice.why())
}

fn make(folder: &Path, name: &str, more: &[&str]) {
    let (certificate, key) = (file(folder, name, "pem"), file(folder, name, "key"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let files = ["-keyout", &key, "-out", &certificate];
    openssl(folder, &[&["req", "-x509", "-nodes", "-days", "30"], &curve[..], &files[..], more].concat());
}

#[expect(clippy::disallowed_methods, reason = "the openssl command line writes files")]
fn read(folder: &Path, name: &str) -> Certificate {
    let bytes = std::fs::read(folder.join(format!("{name}.pem"))).unwrap();
    Certificate::from_der(&pem::certificates(&bytes, name).unwrap()[0]).unwrap()
}

fn file(folder: &Path, name: &str, ending: &str) -> String {
    folder.join(format!("{name}.{ending}")).to_str().unwrap().to_owned()
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
