//! A client in another language, written from PROTOCOL.md and the `.proto` files alone, takes part in an ask.

use std::process::{Command, Stdio};

use muster_load_tests::dev_fleet::DevFleet;
use muster_load_tests::operator::Operator;
use muster_load_tests::tls;
use muster_proto::common::v1::{TargetState, value::Kind};
use muster_proto::operator::v1::ListResultsRequest;
use serde_json::Value;

use crate::support::{Service, folder, repository, run, wait_until, write};

const DEVICE: &str = "python.example.org";

#[test]
fn a_client_in_python_connects_receives_an_order_and_answers_it() {
    let python = repository().join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: run `bash deploy/ci/install-test-needs`", python.display());
    let (fleet, folder) = (DevFleet::start(0).expect("a fleet"), folder());
    let home = &fleet.ready.home;
    let identity = tls::issue_devices(home, &[DEVICE.to_owned()]).expect("a certificate").remove(0);
    let (certificate, key) = (folder.path().join("device.pem"), folder.path().join("device.key"));
    write(&certificate, &identity.chain_pem);
    write(&key, &identity.key_pem);
    messages(&python, folder.path());

    let mut command = Command::new(&python);
    command
        .arg(repository().join("load-tests/python/client.py"))
        .arg(&fleet.ready.switch)
        .args([home, &certificate, &key])
        .arg(DEVICE)
        .env("PYTHONPATH", folder.path())
        .stdin(Stdio::null());
    let mut client = Service::start(command, &folder.path().join("client.log"));
    wait_until("the client's welcome", || {
        assert!(client.runs(), "the client ended:\n{}\n{}", client.log(), fleet.logs());
        client.log().contains("welcome")
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (answered, rows) = runtime.block_on(ask(&fleet)).expect("an answer");

    assert_eq!(client.ends(), Some(0), "{}\n{}", client.log(), fleet.logs());
    let steps: Vec<Value> = client
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(names, ["welcome", "order", "acked"]);
    assert_eq!(steps[1]["definition"], "Muster-Core-Query");
    assert_eq!(answered, 1, "targets that answered");
    assert_eq!(rows, [vec!["Python".to_owned()]]);
}

/// Makes Python modules of the messages, as any stranger would.
#[track_caller]
fn messages(python: &std::path::Path, into: &std::path::Path) {
    let proto = repository().join("proto");
    let mut command = Command::new(python);
    command.args(["-m", "grpc_tools.protoc"]);
    command.arg("-I").arg(&proto).arg("--python_out").arg(into);
    for package in ["common", "session", "order"] {
        command.arg(format!("muster/{package}/v1/{package}.proto"));
    }
    run(command.current_dir(&proto)).with_code(0);
}

/// Asks the one device; gives how many answered, and the rows as text.
async fn ask(fleet: &DevFleet) -> anyhow::Result<(u64, Vec<Vec<String>>)> {
    let operator = Operator::connect(&fleet.ready.home, &fleet.ready.operator).await?;
    let prepared = operator.prepare("SELECT name FROM os", &format!("device == '{DEVICE}'")).await?;
    anyhow::ensure!(prepared.targets == 1, "{} targets", prepared.targets);
    let id = operator.submit(operator.sign(&prepared.order)?, "python").await?;
    let shown = tokio::time::timeout(crate::support::PATIENCE, operator.complete(&id)).await??;
    let answered = shown.states.iter().filter(|count| count.state() == TargetState::Answered);
    let request = ListResultsRequest { instruction: id, ..ListResultsRequest::default() };
    let listed = operator.instructions().list_results(request).await?.into_inner();
    let rows = listed.results.iter().flat_map(|result| &result.rows).map(|row| {
        row.values
            .iter()
            .map(|value| match &value.kind {
                Some(Kind::Text(text)) => text.clone(),
                other => format!("{other:?}"),
            })
            .collect()
    });
    Ok((answered.map(|count| count.count).sum(), rows.collect()))
}
