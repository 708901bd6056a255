//! The local socket: `client.sock` in `data_dir`, for users of this machine who may enter that folder.
//!
//! One request and one answer a connection, each a line of JSON:
//!
//! | request | answer |
//! |---|---|
//! | `{"status":{}}` | `{"status":{…}}` |
//! | `{"event":{"name":"app.started","fields":{"port":80,"user":"w"}}}` | `{"sequence":17}`, once it is on disk |
//! | `{"policy":{}}` | `{"policy":{…}}` |
//! | `{"refresh_policy":{}}`, `{"refresh_policy":{"retry":true}}` | `{"policy":{…}}`, once the Switch was asked for a later one |
//! | anything else, such as a field that stands twice | `{"error":"…"}` |

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::common::v1::NamedValue;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::events::{self, PostError};
use crate::policy::{Heard, PolicyStatus, Retry};
use crate::status::{Status, StatusSource};
use crate::value;

/// Callers served at once; a further one waits.
const CALLERS_MAX: usize = 32;

/// Bytes of a request: the largest event and its names.
const REQUEST_BYTES_MAX: u64 = 128 * 1024;

/// For a request and its answer together, an fsync included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the client is.
    Status {},
    /// Which policy is followed.
    Policy {},
    /// Ask the Switch for a later policy.
    RefreshPolicy {
        /// Look again at what was refused or tried in vain.
        #[serde(default)]
        retry: bool,
    },
    /// Add an event.
    Event {
        /// What happened: 1 to 64 bytes of lower-case ASCII, digits, `_` and `.`.
        name: String,
        /// The particulars. A name that stands twice is refused.
        #[serde(default, deserialize_with = "distinct")]
        fields: BTreeMap<String, Field>,
    },
}

/// A field of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// A number.
    Integer(i64),
    /// Text.
    Text(String),
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How the client is.
    Status(Box<Status>),
    /// Which policy is followed.
    Policy(Box<PolicyStatus>),
    /// The event is on disk, under this number.
    Sequence(u64),
    /// It was not done.
    Error(String),
}

/// Why the running client did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nobody listens.
    #[error("{path}: {cause}; is the client running, and may you enter its data_dir?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// The exchange broke or took too long.
    #[error("{path}: {cause}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The client refused.
    #[error("{0}")]
    Refused(String),
}

/// Asks the client that runs on `socket`.
///
/// # Errors
/// Says whether nobody listens, the exchange broke, or the client refused.
pub async fn ask(socket: &Path, request: &Request) -> Result<Reply, LocalError> {
    let broken = |cause: String| LocalError::Broken { path: socket.to_owned(), cause };
    let exchange = async {
        let mut stream = UnixStream::connect(socket)
            .await
            .map_err(|cause| LocalError::Unreachable { path: socket.to_owned(), cause })?;
        let mut line = serde_json::to_vec(request).map_err(|error| broken(error.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(|error| broken(error.to_string()))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| broken(error.to_string()))?;
        serde_json::from_str(&answer).map_err(|error| broken(error.to_string()))
    };
    match timeout(DEADLINE, exchange)
        .await
        .map_err(|_| broken(format!("no answer within {DEADLINE:?}")))??
    {
        Reply::Error(error) => Err(LocalError::Refused(error)),
        reply @ (Reply::Status(_) | Reply::Policy(_) | Reply::Sequence(_)) => Ok(reply),
    }
}

/// Opens the socket. A stale one is removed: the lock on `data_dir` says that nobody listens there.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until it is stopped.
pub(crate) async fn serve(listener: UnixListener, source: StatusSource, stop: CancellationToken) {
    let callers = Arc::new(Semaphore::new(CALLERS_MAX));
    let mut served = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = served.join_next() => continue,
            stream = accept(&listener, &callers) => stream,
        };
        let Some((stream, permit)) = stream else { continue };
        let source = source.clone();
        served.spawn(async move {
            if timeout(DEADLINE, serve_one(stream, source)).await.is_err() {
                tracing::debug!("a local caller was too slow");
            }
            drop(permit);
        });
    }
}

async fn accept(
    listener: &UnixListener,
    callers: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(callers).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a local caller was not accepted");
            // Such as no free descriptor: it passes, and must not be tried in a tight loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn serve_one(mut stream: UnixStream, source: StatusSource) {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let reply = match BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await {
        Ok(_) => answer(&line, &source).await,
        Err(error) => Reply::Error(error.to_string()),
    };
    let Ok(mut bytes) = serde_json::to_vec(&reply) else { return };
    bytes.push(b'\n');
    if let Err(error) = write.write_all(&bytes).await {
        tracing::debug!(%error, "a local caller went away");
    }
}

async fn answer(line: &str, source: &StatusSource) -> Reply {
    match serde_json::from_str(line) {
        Err(error) => Reply::Error(format!("not a request: {error}")),
        Ok(Request::Status {}) => match source.read().await {
            Ok(status) => Reply::Status(Box::new(status)),
            Err(error) => Reply::Error(error.to_string()),
        },
        Ok(Request::Policy {}) => Reply::Policy(Box::new(source.policy.borrow().clone())),
        Ok(Request::RefreshPolicy { retry }) => {
            let (done, is_done) = oneshot::channel();
            let refresh = Heard::Refresh { retry: if retry { Retry::Yes } else { Retry::No }, done };
            let asked = source.heard.send(refresh).await.is_ok() && is_done.await.is_ok();
            match asked {
                true => Reply::Policy(Box::new(source.policy.borrow().clone())),
                false => Reply::Error("the client stops".to_owned()),
            }
        }
        Ok(Request::Event { name, fields }) => {
            let fields = fields.into_iter().map(named_value).collect();
            match events::post(&source.store, &name, fields).await {
                Ok(sequence) => Reply::Sequence(sequence),
                Err(error) => Reply::Error(error.to_string()),
            }
        }
    }
}

fn named_value((name, field): (String, Field)) -> NamedValue {
    match field {
        Field::Integer(number) => value::integer(&name, number),
        Field::Text(text) => value::text(&name, &text),
    }
}

/// Reads an object whose names are distinct: JSON lets a name stand twice, and every reader keeps another of the two.
fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Field>, D::Error> {
    struct Distinct;
    impl<'de> Visitor<'de> for Distinct {
        type Value = BTreeMap<String, Field>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object of names and whole numbers or texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if fields.contains_key(&name) {
                    return Err(A::Error::custom(PostError::Twice(name)));
                }
                fields.insert(name, map.next_value()?);
            }
            Ok(fields)
        }
    }
    deserializer.deserialize_map(Distinct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_stands_twice_is_refused_by_its_name() {
        let twice = r#"{"event":{"name":"app.started","fields":{"port":80,"user":"w","port":81}}}"#;

        let error = serde_json::from_str::<Request>(twice).unwrap_err().to_string();

        assert!(error.contains(r#"field "port" stands twice"#), "{error}");
    }

    #[test]
    fn fields_may_be_left_out_and_are_read_as_written() {
        let without = serde_json::from_str(r#"{"event":{"name":"app.started"}}"#).unwrap();
        let with = serde_json::from_str(r#"{"event":{"name":"a","fields":{"b":"c","a":1}}}"#).unwrap();

        assert!(matches!(without, Request::Event { fields, .. } if fields.is_empty()));
        let Request::Event { fields, .. } = with else { panic!("{with:?}") };
        let wanted = [("a".to_owned(), Field::Integer(1)), ("b".to_owned(), Field::Text("c".to_owned()))];
        assert_eq!(fields, wanted.into());
    }
}
