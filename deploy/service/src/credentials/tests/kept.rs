//! CRLs of files over a restart: whose number went back, and whose signer is not known by then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use muster_pki::{RevocationMode, Role};

use super::pki::Pki;
use super::points::learn;
use crate::credentials::{
    CredentialError, Keeping, PathElement, Reload, Revocation, RevocationFiles, RevocationSettings,
};

fn try_load(pki: &Pki) -> Result<Arc<Revocation>, CredentialError> {
    let mode = RevocationMode::Soft;
    let settings = RevocationSettings { mode, ..RevocationSettings::default() };
    Revocation::load(pki.revocation_files(), settings, pki.clock())
}

fn complaints(revocation: &Revocation) -> String {
    revocation.complaints().join("; ")
}

/// The names of what is kept of files.
fn lists_kept(pki: &Pki) -> Vec<String> {
    let entries = std::fs::read_dir(pki.path("kept")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("file-")).collect()
}

#[test]
fn r5_a_list_of_a_file_that_went_back_while_nothing_ran_is_told_and_the_newer_one_counts() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let path = [PathElement::of(&device.certificate)];
    pki.write_crl(&[], 8);
    let first = try_load(&pki).unwrap();
    pki.write_crl(&[&device], 9);
    assert_eq!(first.reload(), Reload::Swapped);
    drop(first);

    pki.write_crl(&[], 3);
    let second = try_load(&pki).unwrap();
    let (was_revoked, told) = (second.is_any_revoked(&path), complaints(&second));
    let reload = second.reload();
    let is_revoked_still = second.is_any_revoked(&path);
    pki.write_crl(&[], 10);
    assert_eq!(second.reload(), Reload::Swapped);
    let third = try_load(&pki).unwrap();

    assert!(was_revoked && is_revoked_still);
    assert!(told.contains("devices.crl") && told.contains("with the number 0x09 is known"), "{told}");
    assert_eq!(reload, Reload::Unchanged);
    assert!(!third.is_any_revoked(&path), "a newer one counts");
    assert!(!complaints(&third).contains("devices.crl"));
}

#[test]
fn a_command_beside_a_running_program_changes_nothing_of_what_that_keeps() {
    let pki = Pki::new();
    drop(try_load(&pki).unwrap());
    let contents = || {
        let entries = std::fs::read_dir(pki.path("kept")).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = contents();

    let kept = Keeping::OfAnother(pki.path("kept"));
    let files = RevocationFiles { crls: Vec::new(), kept, ..pki.revocation_files() };
    drop(Revocation::load(files, RevocationSettings::default(), pki.clock()).unwrap());

    assert!(!before.is_empty());
    assert_eq!(contents(), before);
}

#[test]
fn r5_what_is_kept_of_a_file_goes_a_month_after_no_file_had_a_list_of_its_scope() {
    let pki = Pki::new();
    drop(try_load(&pki).unwrap());
    let before = lists_kept(&pki);
    let kept = std::fs::File::open(pki.path("kept").join(&before[0])).unwrap();
    kept.set_modified(UNIX_EPOCH + Duration::from_secs(pki.clock().now().as_secs())).unwrap();

    pki.write("devices.crl", &pki.root_crl(1));
    drop(try_load(&pki).unwrap());
    let with_both = lists_kept(&pki);
    pki.advance(31 * 24 * 3_600);
    drop(try_load(&pki).unwrap());

    let after = lists_kept(&pki);
    assert_eq!((before.len(), with_both.len(), after.len()), (1, 2, 1));
    assert_ne!(before, after);
}

#[test]
fn r5_a_list_whose_signer_is_to_be_met_yet_is_told_and_no_reason_not_to_start() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let path = [PathElement::of(&device.certificate)];
    pki.write("devices.crl", &pki.crl(&[&device], 1));

    let revocation = try_load(&pki).unwrap();
    let (told, is_revoked) = (complaints(&revocation), revocation.is_any_revoked(&path));
    learn(&pki, &revocation, &device);

    assert!(told.contains("devices.crl: CRL of CN=Device CA: no trusted CA of that name"), "{told}");
    assert!(!is_revoked);
    assert_eq!(revocation.reload(), Reload::Swapped);
    assert!(revocation.is_any_revoked(&path) && !complaints(&revocation).contains("devices.crl"));
    pki.write("devices.crl", "no list");
    assert!(try_load(&pki).is_err(), "what cannot be read stays a reason");
}
