use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use muster_client::local::{Field, LocalError, Reply, Request as LocalRequest, ask};
use muster_proto::common::v1::value::Kind;
use muster_proto::session::v1::{EventBatch, EventBatchAck, Lane, SequenceRange};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use crate::lab::{Lab, PATIENCE};
use crate::switch::{FakeSwitch, acceptor};

#[tokio::test(flavor = "multi_thread")]
async fn a_local_program_posts_an_event_that_goes_over_the_session() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    assert_eq!(session.event().await.name, "client.started");

    let reply = ask(client.running.socket(), &event("app.started")).await.unwrap();

    let event = session.event().await;
    assert_eq!((event.name.as_str(), event.fields.len()), ("app.started", 2));
    assert!(matches!(reply, Reply::Sequence(sequence) if sequence == event.sequence));
    session.ack(Lane::Events, 1).await;
    session.ack(Lane::Events, event.sequence).await;
    client.wait_for(|status| status.outbox.events == 0).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_with_its_reason() {
    let lab = Lab::new(1, 1);
    let client = lab.start().await;

    let error = ask(client.running.socket(), &event("Not An Event")).await.unwrap_err();

    assert!(matches!(&error, LocalError::Refused(reason) if reason.contains("name")), "{error}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_a_field_that_stands_twice_is_refused_and_not_kept() {
    let lab = Lab::new(1, 1);
    let client = lab.start().await;
    let before = client.running.status().await.unwrap().outbox.events;

    let mut socket = UnixStream::connect(client.running.socket()).await.unwrap();
    let twice = br#"{"event":{"name":"app.started","fields":{"port":80,"port":81}}}"#;
    socket.write_all(twice).await.unwrap();
    socket.write_all(b"\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let field = |number| muster_proto::common::v1::NamedValue {
        name: "port".to_owned(),
        value: Some(muster_proto::common::v1::Value { kind: Some(Kind::Integer(number)) }),
    };
    let posted = client.running.post_event("app.started", vec![field(80), field(81)]).await;

    let reply: Reply = serde_json::from_str(&answer).unwrap();
    assert!(matches!(&reply, Reply::Error(text) if text.contains("\"port\" stands twice")), "{reply:?}");
    assert!(posted.unwrap_err().to_string().contains("\"port\" stands twice"));
    assert_eq!(client.running.status().await.unwrap().outbox.events, before);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new(1, 1);
    let client = lab.start().await;

    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

    assert_eq!((mode(client.running.socket()), mode(&lab.config().data_dir)), (0o600, 0o700));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_events_go_to_the_background_channel() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    // Nobody listens on port 1: the Switch is away.
    let lab = Lab::new(1, listener.local_addr().unwrap().port());
    let posted = Arc::new(Mutex::new(Vec::new()));
    let mut server = JoinSet::new();
    server.spawn(serve(listener, acceptor(&lab), Arc::clone(&posted)));
    let client = lab.start().await;

    client.running.post_event("app.one", Vec::new()).await.unwrap();
    client.running.post_event("app.two", Vec::new()).await.unwrap();
    client.wait_for(|status| status.outbox.events == 0).await;

    let mut names: Vec<(u64, String)> = posted.lock().unwrap().clone();
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["client.started", "app.one", "app.two"]);
    tokio::time::timeout(PATIENCE, client.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_channel_whose_certificate_is_revoked_gets_no_more_events() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let lab = Lab::new(1, listener.local_addr().unwrap().port());
    let posted = Posted::default();
    let mut server = JoinSet::new();
    server.spawn(serve(listener, acceptor(&lab), Arc::clone(&posted)));
    let client = lab.start().await;
    client.wait_for(|status| status.outbox.events == 0).await;

    lab.revoke_server();
    let is_refused = || posted.lock().unwrap().iter().any(|(_, name)| name == REFUSED);
    let mut last = 0;
    let revoked = async {
        // As long as the list is not read yet, each event arrives.
        while !is_refused() {
            last = client.running.post_event("app.one", Vec::new()).await.unwrap();
            let has = || posted.lock().unwrap().iter().any(|(sequence, _)| *sequence == last);
            while !has() && !is_refused() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, revoked).await.expect("the list was never read");

    assert!(!posted.lock().unwrap().iter().any(|(sequence, _)| *sequence == last));
    assert!(client.running.status().await.unwrap().outbox.events > 0);
    client.stop().await;
}

fn event(name: &str) -> LocalRequest {
    let fields = [("port", Field::Integer(80)), ("user", Field::Text("w".to_owned()))];
    let fields: BTreeMap<String, Field> = fields.map(|(name, field)| (name.to_owned(), field)).into();
    LocalRequest::Event { name: name.to_owned(), fields }
}

/// What a connection that the client gave up leaves, in place of an event.
const REFUSED: &str = "the client refused";

type Posted = Arc<Mutex<Vec<(u64, String)>>>;

async fn serve(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, posted: Posted) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = acceptor.accept(stream).await else {
            posted.lock().unwrap().push((0, REFUSED.to_owned()));
            continue;
        };
        let posted = Arc::clone(&posted);
        let service = service_fn(move |request| answer(request, Arc::clone(&posted)));
        // The client hangs up after each request.
        drop(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
        );
    }
}

async fn answer(request: Request<Incoming>, posted: Posted) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/Background/v1/events");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let batch = EventBatch::decode(body).unwrap();
    assert_eq!(batch.outbox_id.len(), 16);
    let ranges =
        batch.events.iter().map(|event| SequenceRange { first: event.sequence, last: event.sequence });
    let ack = EventBatchAck { ranges: ranges.collect() };
    posted.lock().unwrap().extend(batch.events.into_iter().map(|event| (event.sequence, event.name)));
    Ok(Response::new(Full::new(Bytes::from(ack.encode_to_vec()))))
}
