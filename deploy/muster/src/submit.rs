//! Signs a checked order and submits it, once: a connection that breaks leaves open whether the Switch took the order, so
//! the same envelope goes again under the same idempotency key, and makes no second instruction.
//!
//! A Switch that restarted since has forgotten the order, which denies nothing: it is prepared, checked and signed once
//! more. It goes under the same key, too: had the Switch taken the first one after all, it would refuse the second.

use std::time::Duration;

use muster_proto::operator::v1::SubmitInstructionRequest;
use muster_signing::definition::Kind;
use muster_signing::envelope::{self, ContentType, Signer};
use rustls_pki_types::UnixTime;
use tonic::{Code, Status};

use crate::cli::OrderKey;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::issue::{self, Checked, Wish};
use crate::operator::{Operator, answered};
use crate::order_key;

/// Before an order goes a second time: a Switch that its service manager starts again is often there by then.
pub(crate) const RESUBMIT_PAUSE: Duration = Duration::from_secs(1);

/// An order in its envelope.
#[derive(Debug)]
struct Signed {
    envelope: Vec<u8>,
    /// The id in it.
    instruction: Vec<u8>,
}

/// Signs a checked order and submits it; returns the instruction's id. An order that the Switch has forgotten is prepared
/// again of the wish, once.
pub(crate) async fn submit(
    operator: &Operator,
    home: &Home,
    wish: &Wish,
    checked: &Checked,
    key: &OrderKey,
) -> Result<String, Failure> {
    let signer = order_key::open(home, key)?;
    let prepare_again = async || {
        let again = issue::prepare(operator, home, wish).await?;
        still_meant(checked, &again)?;
        sign(&signer, &again)
    };
    send(operator, sign(&signer, checked)?, prepare_again).await
}

fn sign(signer: &Signer, checked: &Checked) -> Result<Signed, Failure> {
    let envelope = envelope::sign(&checked.bytes, ContentType::Order, signer, UnixTime::now())
        .map_err(|error| Failure::denied(format!("sign the order: {error}")))?;
    Ok(Signed { envelope, instruction: checked.order.instruction.clone() })
}

/// An action was confirmed for the devices and the definition that were shown, and for no others.
fn still_meant(confirmed: &Checked, again: &Checked) -> Result<(), Failure> {
    let meant = |checked: &Checked| (checked.order.audience.clone(), checked.order.definition_digest.clone());
    match again.definition.kind() {
        Kind::Action if meant(confirmed) != meant(again) => Err(Failure::new(
            Exit::Refused,
            "the Switch has forgotten the order, and what it prepares now is for other devices or of another definition; \
             nothing was sent",
        )
        .with_next(SAME_AGAIN)),
        Kind::Action | Kind::Question => Ok(()),
    }
}

const SAME_AGAIN: &str = "the same command again";

/// Submits an order, and in its place another, once, where the Switch does not have it any more.
async fn send(
    operator: &Operator,
    signed: Signed,
    prepare_again: impl AsyncFnOnce() -> Result<Signed, Failure>,
) -> Result<String, Failure> {
    let key = uuid::Uuid::now_v7().to_string();
    match deliver(operator, &signed, &key).await {
        Err(status) if status.code() == Code::Aborted => {
            let again = prepare_again().await?;
            deliver(operator, &again, &key).await.map_err(|status| unsent(status, &again))
        }
        answered => answered.map_err(|status| unsent(status, &signed)),
    }
}

/// Submits an envelope, and once more where the Switch gave no answer to it.
async fn deliver(operator: &Operator, signed: &Signed, key: &str) -> Result<String, Status> {
    let request =
        SubmitInstructionRequest { envelope: signed.envelope.clone(), idempotency_key: key.to_owned() };
    let once = async || {
        let answer = answered(operator.instructions().submit_instruction(request.clone())).await;
        answer.map(|answer| answer.instruction)
    };
    match once().await {
        Err(status) if Failure::from(status.clone()).exit() == Exit::Unreachable => {
            tokio::time::sleep(RESUBMIT_PAUSE).await;
            once().await
        }
        answered => answered,
    }
}

fn unsent(status: Status, signed: &Signed) -> Failure {
    let is_forgotten = status.code() == Code::Aborted;
    let failure = Failure::from(status);
    match failure.exit() {
        Exit::Unreachable => in_doubt(&failure, &signed.instruction),
        Exit::Refused if is_forgotten => failure.with_next(SAME_AGAIN),
        Exit::Ok | Exit::Refused | Exit::Usage | Exit::Partial | Exit::Denied => failure,
    }
}

/// No answer came, so the order may have been taken: the id is in the order itself.
fn in_doubt(failure: &Failure, instruction: &[u8]) -> Failure {
    let Ok(id) = uuid::Uuid::from_slice(instruction) else {
        return Failure::unreachable(failure.to_string()).with_next("muster instruction list");
    };
    Failure::unreachable(format!("{failure}; whether the Switch took instruction {id} is not known"))
        .with_next(format!("muster instruction show {id}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use hyper_util::rt::TokioIo;
    use muster_proto_grpc::operator::v1::instruction_service_server::InstructionServiceServer;
    use tokio::runtime::Runtime;
    use tokio::sync::mpsc;
    use tonic::Status;
    use tonic::transport::server::TcpIncoming;
    use tonic::transport::{Endpoint, Server, Uri};

    use super::*;
    use crate::fake_switch::{FakeSwitch, ID, Manner};
    use crate::issue;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A place for Switches, one after the other.
    struct Place {
        listener: TcpListener,
        asked: mpsc::Receiver<[Vec<u8>; 2]>,
        ask: mpsc::Sender<[Vec<u8>; 2]>,
    }

    impl Place {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let (ask, asked) = mpsc::channel(4);
            Self { listener, asked, ask }
        }

        /// A Switch that dies with its runtime, connections and all.
        fn start(&self, manner: Manner) -> Runtime {
            let runtime = Runtime::new().unwrap();
            let listener = self.listener.try_clone().unwrap();
            let switch = FakeSwitch { manner, asked: Some(self.ask.clone()), ..FakeSwitch::default() };
            let service = InstructionServiceServer::new(switch);
            runtime.spawn(async move {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
                Server::builder().add_service(service).serve_with_incoming(incoming).await
            });
            runtime
        }

        async fn asked(&mut self) -> [Vec<u8>; 2] {
            tokio::time::timeout(PATIENCE, self.asked.recv()).await.unwrap().unwrap()
        }

        async fn operator(&self) -> Operator {
            let address = self.listener.local_addr().unwrap();
            let connector = tower::service_fn(move |_: Uri| async move {
                tokio::net::TcpStream::connect(address).await.map(TokioIo::new)
            });
            let endpoint = Endpoint::from_static("http://switch.invalid");
            Operator::over(endpoint.connect_with_connector(connector).await.unwrap())
        }
    }

    #[tokio::test]
    async fn an_order_that_a_dying_switch_did_not_answer_goes_again_as_the_same_one() {
        let mut place = Place::new();
        let dying = place.start(Manner::Hangs);
        let operator = place.operator().await;
        let sending = send(&operator, signed(7), async || panic!("the first one was taken"));
        let sending = async { tokio::time::timeout(PATIENCE, sending).await.unwrap() };
        let restarting = async {
            let first = place.asked().await;
            dying.shutdown_background();
            let restarted = place.start(Manner::Answers);
            let second = place.asked().await;
            (first, second, restarted)
        };

        let (id, (first, second, restarted)) = tokio::join!(sending, restarting);
        restarted.shutdown_background();

        assert_eq!(id.unwrap(), ID);
        assert_eq!(first, second, "one envelope and one key make one instruction");
    }

    fn signed(envelope: u8) -> Signed {
        Signed { envelope: vec![envelope], instruction: vec![envelope; 16] }
    }

    #[tokio::test]
    async fn an_order_that_a_restarted_switch_forgot_is_prepared_and_signed_again_under_the_same_key() {
        let mut place = Place::new();
        let forgot = place.start(Manner::Forgot);
        let operator = place.operator().await;
        let ask = place.ask.clone();
        let prepare_again = async || {
            // Between the two, so that the test sees the order of things.
            ask.send([b"prepared".to_vec(), Vec::new()]).await.unwrap();
            Ok(signed(8))
        };

        let sent = send(&operator, signed(7), prepare_again);
        let sent = tokio::time::timeout(PATIENCE, sent).await.unwrap();
        let asked = [place.asked().await, place.asked().await, place.asked().await];
        forgot.shutdown_background();

        assert_eq!(asked.each_ref().map(|[what, _]| &what[..]), [&[7][..], b"prepared", &[8]]);
        assert_eq!(asked[0][1], asked[2][1], "with one key the Switch itself refuses to issue both");
        let failure = sent.unwrap_err();
        assert_eq!((failure.exit(), failure.next()), (Exit::Refused, Some(SAME_AGAIN)), "once is enough");
    }

    #[tokio::test]
    async fn what_was_prepared_again_and_taken_is_the_instruction() {
        let mut place = Place::new();
        let forgot = place.start(Manner::Forgot);
        let operator = place.operator().await;
        let mut restarted = None;

        let prepare_again = async || {
            forgot.shutdown_background();
            restarted = Some(place.start(Manner::Answers));
            Ok(signed(8))
        };
        let sent = send(&operator, signed(7), prepare_again);
        let sent = tokio::time::timeout(PATIENCE, sent).await.unwrap();
        restarted.unwrap().shutdown_background();

        assert_eq!(sent.unwrap(), ID);
        assert_eq!(place.asked().await[0], [7]);
        assert_eq!(place.asked().await[0], [8]);
    }

    #[test]
    fn an_action_is_signed_again_only_for_what_was_confirmed() {
        let prepared = |kind: &str, root: u8| {
            let order = muster_proto::order::v1::Order {
                audience: Some(muster_proto::order::v1::Audience {
                    members_root: vec![root],
                    ..Default::default()
                }),
                ..Default::default()
            };
            Checked { bytes: Vec::new(), order, definition: definition(kind), prepared: Default::default() }
        };

        let same = still_meant(&prepared("action", 1), &prepared("action", 1));
        let others = still_meant(&prepared("action", 1), &prepared("action", 2));
        let question = still_meant(&prepared("question", 1), &prepared("question", 2));

        assert!(same.is_ok() && question.is_ok());
        assert_eq!(others.unwrap_err().exit(), Exit::Refused);
    }

    fn definition(kind: &str) -> muster_signing::definition::Definition {
        let text = include_str!("../../../signing/definitions/Muster-Os-Version.toml");
        let text = text.replace("kind = \"question\"", &format!("kind = \"{kind}\""));
        muster_signing::definition::Definition::parse(&text).unwrap()
    }

    #[tokio::test]
    async fn a_switch_that_dies_while_it_is_watched_is_unreachable_and_the_instruction_is_named() {
        let mut place = Place::new();
        let dying = place.start(Manner::Answers);
        let operator = place.operator().await;
        let watching = issue::watch(&operator, ID, PATIENCE, |_| {});
        let killing = async {
            place.asked().await;
            dying.shutdown_background();
        };

        let (watched, ()) = tokio::join!(watching, killing);
        let failure = watched.unwrap_err().after_submit(ID);

        assert_eq!(failure.exit(), Exit::Unreachable, "{failure}");
        let said = failure.to_string();
        assert!(said.contains("the connection to the Switch broke") && said.contains(ID), "{said}");
        assert_eq!(failure.next(), Some(format!("muster instruction watch {ID}").as_str()));
    }

    #[test]
    fn an_order_without_an_answer_is_in_doubt_and_named() {
        let id = uuid::Uuid::parse_str(ID).unwrap();

        let failure = in_doubt(&Failure::unreachable("the connection broke"), id.as_bytes());

        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.to_string().contains(ID), "{failure}");
    }

    #[test]
    fn what_the_switch_itself_says_keeps_its_meaning() {
        assert_eq!(Failure::from(Status::internal("its own words")).exit(), Exit::Refused);
        assert_eq!(Failure::from(Status::permission_denied("its own words")).exit(), Exit::Denied);
        assert_eq!(
            Failure::from(Status::aborted("its own words")).exit(),
            Exit::Refused,
            "nothing is denied"
        );
    }
}
