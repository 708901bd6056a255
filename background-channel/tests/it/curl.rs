//! What people see who call with curl over HTTP/2 and are refused, also before their content is through.

use std::process::{Output, Stdio};

use muster_pki::Role;
use tokio::process::Command;

use crate::pki::A_MONTH;
use crate::world::{CHANNEL_NAME, Channel, PATIENCE, World};

/// More than an upload may have in these tests, and than any buffer on the way holds.
const LARGE: usize = 6 << 20;

#[tokio::test]
async fn an_upload_over_http2_that_is_refused_early_shows_its_answer_and_no_broken_stream() {
    let mut world = World::new().await;
    world.config.limits.resource_bytes_max = 1 << 20;
    let channel = world.start().await;
    let folder = tempfile::tempdir().unwrap();
    let content = folder.path().join("content");
    std::fs::write(&content, vec![7; LARGE]).unwrap();
    let root = blake3::hash(b"").to_hex();
    let put = format!("/resources/{root}");
    let cases = [
        (Role::Device, "PUT", format!("{put}?name=a"), "403", "this needs an operator's certificate"),
        (Role::Operator, "PUT", format!("{put}?name=a"), "413", "raise `limits.resource_bytes_max`"),
        (Role::Operator, "PUT", put.clone(), "400", "?name=NAME"),
        (Role::Operator, "PUT", "/resources/none?name=a".to_owned(), "400", "is not a BLAKE3 root"),
        (Role::Operator, "PUT", "/nowhere".to_owned(), "404", "nothing here"),
        (Role::Device, "POST", put.clone(), "405", ""),
        (Role::Device, "POST", "/events".to_owned(), "413", "post fewer at once"),
    ];

    for (role, method, path, status, text) in cases {
        for attempt in 0..5 {
            let words = ["-X", method, "--upload-file", content.to_str().unwrap()];
            let said = curl(&world, &channel, role, &words, &path).await;

            let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert!(said.status.success(), "{method} {path}, attempt {attempt}: {err}");
            assert!(out.ends_with(&format!("\n2 {status}")), "{method} {path}: {out}");
            assert!(out.contains(text), "{method} {path}: {out}");
        }
    }
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_head_over_http2_that_is_refused_shows_its_answer_and_no_broken_stream() {
    let world = World::new().await;
    let channel = world.start().await;
    let root = blake3::hash(b"").to_hex();
    for (path, status) in [
        (format!("/resources/{root}"), "404"),
        ("/resources/none".to_owned(), "400"),
        ("/x".to_owned(), "404"),
    ] {
        for role in [Role::Device, Role::Operator] {
            let said = curl(&world, &channel, role, &["--head"], &path).await;

            let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert!(said.status.success(), "{path}: {err}");
            assert!(out.ends_with(&format!("\n2 {status}")), "{path}: {out}");
        }
    }
    channel.stop().await.unwrap();
}

/// Calls; the answer ends with the version of HTTP and the status.
async fn curl(world: &World, channel: &Channel, role: Role, words: &[&str], path: &str) -> Output {
    let port = channel.running.addr().port();
    let (certificate, key) = world.pki.write("curl", &world.pki.issue(role, "curl.acme.local", A_MONTH));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--http2", "--max-time", "30", "--expect100-timeout", "0.05"]);
    command.args(["--write-out", "\n%{http_version} %{http_code}"]).args(words);
    command.arg("--resolve").arg(format!("{CHANNEL_NAME}:{port}:127.0.0.1"));
    command.arg("--cacert").arg(world.pki.roots_file(Role::Switch));
    command.arg("--cert").arg(certificate).arg("--key").arg(key);
    command.arg(format!("https://{CHANNEL_NAME}:{port}/Background/v1{path}"));
    let said = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, said)
        .await
        .unwrap()
        .expect("curl: install it (bash deploy/ci/install-test-needs)")
}
