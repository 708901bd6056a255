//! A client's trust store as files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::authority::Issued;
use muster_pki::trust_store::{Appended, TrustFields, TrustSettings, YesNo, fingerprint};
use muster_pki::{Certificate, Role};

use super::meet;
use super::pki::{DAY, Pki};
use crate::credentials::{self, ClientCredentials, Own, Reload, Saved, Servers, TrustFolder};
use crate::health::State;

#[tokio::test]
async fn t6_t7_a_saved_server_certificate_is_an_anchor_and_a_renewed_one_needs_to_be_saved_before() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    let server = pki.server();
    assert_eq!(saved(&folder, &server.own().unwrap()), "changed");
    assert_eq!(saved(&folder, &server.own().unwrap()), "there");
    let client = client(&pki, &folder);

    meet(&server, &client, "localhost").await.client.unwrap();
    let renewed = pki.issue_server("localhost", 300);
    assert_eq!(server.reload(), Reload::Swapped);
    // A client that has a ticket of before resumes its session, which is as good as it was.
    let client = self::client(&pki, &folder);
    let refused = meet(&server, &client, "localhost").await.client.unwrap_err();
    assert!(refused.contains("T6"), "{refused}");
    // T8: new certificates are merged before a server changes over; here it is late, and enough for the next attempt.
    assert_eq!(saved(&folder, &renewed.certificate), "changed");
    assert_eq!(client.reload(), Reload::Swapped);

    meet(&server, &client, "localhost").await.client.unwrap();
}

#[tokio::test]
async fn t2_a_ca_that_is_added_by_hand_counts_and_a_hand_edit_of_the_merged_file_is_lost() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    std::fs::write(pki.path("trust/cainfo.pem"), "# nothing yet\n").unwrap();
    let (server, client) = (pki.server(), client(&pki, &folder));
    meet(&server, &client, "localhost").await.client.unwrap_err();

    std::fs::copy(pki.path("servers.pem"), pki.path("trust/cainfo.pem")).unwrap();
    assert_eq!(client.reload(), Reload::Swapped);
    meet(&server, &client, "localhost").await.client.unwrap();
    std::fs::write(folder.merged_file(), "# emptied by hand\n").unwrap();
    let _whatever = client.reload();

    meet(&server, &client, "localhost").await.client.unwrap();
    let merged = std::fs::read_to_string(folder.merged_file()).unwrap();
    assert!(merged.contains("hand edits are lost") && merged.contains("BEGIN CERTIFICATE"), "{merged}");
}

#[tokio::test]
async fn t10_an_input_that_everyone_may_write_is_refused_and_the_merged_file_stays() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    let input = pki.path("trust/cainfo.pem");
    std::fs::copy(pki.path("servers.pem"), &input).unwrap();
    let (server, client) = (pki.server(), client(&pki, &folder));
    meet(&server, &client, "localhost").await.client.unwrap();

    std::fs::copy(pki.path("operators.pem"), &input).unwrap();
    std::fs::set_permissions(&input, std::fs::Permissions::from_mode(0o666)).unwrap();
    let rebuilt = folder.rebuild(true).unwrap();

    assert_eq!(rebuilt.reason, None);
    assert!(rebuilt.problems[0].contains("chmod o-w"), "{:?}", rebuilt.problems);
    meet(&server, &client, "localhost").await.client.unwrap();
}

#[tokio::test]
async fn t2_a_file_without_a_certificate_empties_no_trust_and_is_told_while_running_and_after_a_restart() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    let input = pki.path("trust/cainfo.pem");
    let own = pki.issue("w701", Role::Device, 300);
    std::fs::copy(pki.path("servers.pem"), &input).unwrap();
    let (server, client) = (pki.server(), client_showing(&pki, &folder, &own));

    for content in
        ["hello\n", "", "# nothing\n", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]
    {
        std::fs::write(&input, content).unwrap();
        let reload = client.reload();
        let restarted = client_showing(&pki, &folder, &own);

        assert!(matches!(&reload, Reload::Kept { .. } | Reload::Unchanged), "{content:?}: {reload:?}");
        for client in [&client, &restarted] {
            let told = client.problem().unwrap_or_default();
            assert!(told.contains("cainfo.pem") && told.contains("no certificate"), "{content:?}: {told}");
            meet(&server, client, "localhost").await.client.unwrap();
        }
    }
    std::fs::copy(pki.path("servers.pem"), &input).unwrap();
    drop(client.reload());
    assert_eq!(client.state(), State::Ready);
}

#[tokio::test]
async fn t9_a_ca_file_that_is_missing_or_turns_to_garbage_is_told_and_what_it_gave_stays() {
    let pki = Pki::new();
    let (path, other) = (pki.path("trust/fleet.pem"), pki.path("operators.pem"));
    let fields = TrustFields { ca_file: path.display().to_string(), ..TrustFields::default() };
    let folder = folder(&pki, fields);
    std::fs::copy(&other, pki.path("trust/cainfo.pem")).unwrap();
    let own = pki.issue("w701", Role::Device, 300);
    let missing = client_showing(&pki, &folder, &own).problem().unwrap_or_default();

    std::fs::copy(pki.path("servers.pem"), &path).unwrap();
    let (server, client) = (pki.server(), client_showing(&pki, &folder, &own));
    let whole = client.state();
    std::fs::write(&path, "garbage").unwrap();
    let garbage = client.reload();
    meet(&server, &client, "localhost").await.client.unwrap();
    std::fs::remove_file(&path).unwrap();
    let gone = client.reload();
    meet(&server, &client, "localhost").await.client.unwrap();

    assert!(missing.contains("fleet.pem: does not exist"), "{missing}");
    assert_eq!(whole, State::Ready);
    for (reload, wanted) in [(garbage, "no certificate"), (gone, "does not exist")] {
        let Reload::Kept { problems } = reload else { panic!("{reload:?}") };
        assert!(problems[0].contains("fleet.pem") && problems[0].contains(wanted), "{problems:?}");
    }
}

#[test]
fn t9_a_folder_of_cas_that_holds_none_is_told() {
    let pki = Pki::new();
    let authorities = pki.path("authorities");
    std::fs::create_dir(&authorities).unwrap();
    let fields = TrustFields { ca_path: authorities.display().to_string(), ..TrustFields::default() };
    let folder = folder(&pki, fields);
    std::fs::copy(pki.path("servers.pem"), pki.path("trust/cainfo.pem")).unwrap();
    let own = pki.issue("w701", Role::Device, 300);
    let told = || client_showing(&pki, &folder, &own).problem().unwrap_or_default();

    let empty = told();
    std::fs::write(authorities.join("README"), "CAs come here").unwrap();
    let without_ca = told();
    std::fs::copy(pki.path("operators.pem"), authorities.join("fleet.pem")).unwrap();
    let whole = told();

    for text in [empty, without_ca] {
        assert!(text.contains("authorities: no CA in any file of ca_path"), "{text}");
    }
    assert_eq!(whole, "");
}

#[test]
fn t5_a_block_that_is_left_out_is_told_as_long_as_it_stands_there() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    let text = pki.read("servers.pem") + "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    std::fs::write(pki.path("trust/cainfo.pem"), text).unwrap();
    let own = pki.issue("w701", Role::Device, 300);

    let client = client_showing(&pki, &folder, &own);
    let again = client_showing(&pki, &folder, &own);

    for client in [client, again] {
        let told = client.problem().unwrap_or_default();
        assert!(told.contains("cainfo.pem: line "), "{told}");
    }
}

#[tokio::test]
async fn t9_a_pinned_fingerprint_holds_with_and_without_an_anchor() {
    let pki = Pki::new();
    let own = pki.server().own().unwrap();
    let other = pki.issue("localhost", Role::Switch, 30).certificate;
    for (verify_peer, pinned, has_anchor, expected) in [
        (YesNo::Yes, &own, true, true),
        (YesNo::Yes, &own, false, false),
        (YesNo::Yes, &other, true, false),
        (YesNo::No, &own, false, true),
        (YesNo::No, &other, false, false),
    ] {
        let fields = TrustFields {
            verify_peer,
            pinned_fingerprint: fingerprint::text(&pinned.thumbprint()),
            ..TrustFields::default()
        };
        let folder = folder(&pki, fields);
        let anchor = if has_anchor { "servers.pem" } else { "operators.pem" };
        std::fs::copy(pki.path(anchor), pki.path("trust/cainfo.pem")).unwrap();

        let met = meet(&pki.server(), &client(&pki, &folder), "localhost").await;

        let is_right = *pinned == own;
        assert_eq!(
            met.client.is_ok(),
            expected,
            "{verify_peer:?}, right pin {is_right}, anchor {has_anchor}"
        );
    }
}

#[test]
fn n3_anchors_of_a_trust_folder_are_told_of_thirty_days_before_they_end() {
    let pki = Pki::new();
    let folder = folder(&pki, TrustFields::default());
    // A CA that lives ten years, and a server's own certificate that lives one.
    std::fs::copy(pki.path("servers.pem"), pki.path("trust/cainfo.pem")).unwrap();
    assert_eq!(saved(&folder, &pki.server().own().unwrap()), "changed");
    let own = pki.issue("w701", Role::Device, 4_000);
    let client = client_showing(&pki, &folder, &own);
    let told = || match client.state() {
        State::Degraded(why) => why,
        State::Ready | State::Starting | State::Failed(_) => String::new(),
    };

    pki.advance((365 - 31) * DAY);
    let early = told();
    pki.advance(11 * DAY);
    let leaf = told();
    pki.advance((3_650 - 365) * DAY);
    let authority = told();

    assert_eq!(early, "");
    assert!(
        leaf.contains("cainfo-merged.pem, line ")
            && leaf.contains("server certificate CN=localhost expires in"),
        "{leaf}"
    );
    assert!(!leaf.contains("Server Root"), "{leaf}");
    assert!(
        authority.contains("CA CN=Server Root expires in") && authority.contains("CN=localhost expired"),
        "{authority}"
    );
}

/// A folder that only its owner may write, whatever the umask of the tests is.
fn folder(pki: &Pki, fields: TrustFields) -> TrustFolder {
    let path: PathBuf = pki.path("trust");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    TrustFolder::new(path, TrustSettings::try_from(&fields).unwrap())
}

fn saved(folder: &TrustFolder, certificate: &Certificate) -> &'static str {
    match folder.save(Saved::Server, certificate, "localhost").unwrap() {
        Appended::Changed(_) => "changed",
        Appended::AlreadyThere => "there",
    }
}

fn client(pki: &Pki, folder: &TrustFolder) -> Arc<ClientCredentials> {
    client_showing(pki, folder, &pki.issue("w701", Role::Device, 30))
}

fn client_showing(pki: &Pki, folder: &TrustFolder, own: &Issued) -> Arc<ClientCredentials> {
    let files = pki.write_pair("device", own);
    let alpn = vec![b"muster/1".to_vec()];
    let servers = Servers::Folder(folder.clone());
    credentials::client(Own::Files(files), servers, alpn, Role::Device, pki.rules()).unwrap()
}
