//! A distribution point of the devices' issuing CA: a real HTTP server that does as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::world::PATIENCE;

/// What a distribution point does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Hangs up before it answers.
    Down,
    /// Takes the request and never answers.
    Slow,
    /// Gives these bytes.
    Body(String),
}

/// A distribution point; it ends with the test.
pub(crate) struct Point {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Receiver<u64>,
    _task: JoinSet<()>,
}

impl Point {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let (count, asked) = watch::channel(0);
        let (mut task, given) = (JoinSet::new(), Arc::clone(&answer));
        task.spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = given.lock().unwrap().clone();
                held.extend(handle(stream, answer).await);
                count.send_modify(|count| *count += 1);
            }
        });
        Self { address, answer, asked, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/devices.crl", self.address)
    }

    /// Does so from now on, and waits until it was asked `times` since.
    pub(crate) async fn answer(&self, answer: Answer, times: u64) {
        *self.answer.lock().unwrap() = answer;
        let mut asked = self.asked.clone();
        // The request that is under way may have the answer of before.
        let enough = *asked.borrow_and_update() + 1 + times;
        tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= enough)).await.unwrap().unwrap();
    }
}

/// Answers one request; a stream that comes back is to be held open.
async fn handle(mut stream: TcpStream, answer: Answer) -> Option<TcpStream> {
    let body = match answer {
        Answer::Down => return None,
        Answer::Slow => return Some(stream),
        Answer::Body(body) => body,
    };
    let mut head = BufReader::new(&mut stream).lines();
    while head.next_line().await.ok()??.trim() != "" {}
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    // Whoever hung up needs no answer.
    drop(stream.write_all(answer.as_bytes()).await);
    None
}
