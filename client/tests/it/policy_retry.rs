//! A policy that was refused, and who may have it looked at again.

use std::process::Stdio;

use tokio::process::Command;

use crate::lab::Lab;
use crate::policies::{event, runs, text};
use crate::switch::{FakeSwitch, Session};

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_refused_policy_is_asked_for_again_only_by_a_refresh_that_says_retry() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.foreign_policy(1, "says = \"by somebody else\""));
    let refused = event(&mut session, "policy.refused").await;
    assert_eq!((text(&refused, "reason").as_str(), session.asked), ("signature", 1));

    refresh(&mut session, &lab, &[]).await;
    // Whatever it asked for comes before what is sent after this.
    runs(&mut session, &lab, 1).await;
    let after_refresh = session.asked;
    refresh(&mut session, &lab, &["--retry"]).await;
    let again = event(&mut session, "policy.refused").await;

    assert_eq!(after_refresh, 1);
    assert_eq!((text(&again, "reason").as_str(), session.asked), ("signature", 2));
    client.stop().await;
}

/// Runs `muster-client policy refresh`, answering what it has the client ask.
async fn refresh(session: &mut Session, lab: &Lab, more: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-client"));
    command
        .args(["policy", "refresh", "--data-dir"])
        .arg(lab.config().data_dir)
        .args(more)
        .stdin(Stdio::null());
    let said = session.answer_until(command.output()).await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
