//! A Background Channel that lies: it has the certificate and key of the real one, and gives for each resource what a test wants. It is
//! the process of the test, and the client is a real one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::Place;

/// Bytes that are written at once where there is no end of them.
const PIECE_BYTES: usize = 64 << 10;

/// Between two bytes of a trickle: far less than any silence that is too long.
const TRICKLE: Duration = Duration::from_millis(50);

/// What is given for a path.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The lines of the head behind the first, each with its end.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) then: Then,
}

/// What comes behind the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The end.
    Ends,
    /// More, until the client leaves.
    GoesOn,
    /// The body itself comes byte by byte, and one byte after the other behind it, until the client leaves.
    Trickles,
    /// Nothing, until the client leaves.
    Waits,
    /// Instead of the body: more lines of the head, until the client leaves.
    EndlessHead,
}

/// A server in the real one's place; it answers as long as the test's process lives.
pub(crate) struct LyingBackground(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    asked: Vec<String>,
    /// The most bytes that were written in one answer.
    most_sent: u64,
}

impl Answer {
    /// The bytes, with this length before them.
    pub(crate) fn told(length: u64, body: &[u8], then: Then) -> Self {
        Self { head: format!("content-length: {length}\r\n"), body: body.to_vec(), then }
    }

    /// The bytes, and no word of how many.
    pub(crate) fn untold(body: &[u8], then: Then) -> Self {
        Self { head: String::new(), body: body.to_vec(), then }
    }

    /// The bytes as an honest server gives them.
    pub(crate) fn honest(body: &[u8]) -> Self {
        Self::told(body.len() as u64, body, Then::Ends)
    }
}

impl LyingBackground {
    /// Listens where clients look for the real one.
    pub(crate) fn listen(place: &Place, tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, place.ports.background)).expect("its port");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, state) = (Arc::clone(&tls), Arc::clone(&shared));
                // Whoever has heard enough is gone.
                std::thread::spawn(move || drop(serve(stream, tls, &state)));
            }
        });
        Self(state)
    }

    /// Gives this for a resource, by its root, or for its hashes, by its root and `.obao`.
    pub(crate) fn gives(&self, name: &str, answer: Answer) {
        self.0.lock().unwrap().answers.insert(name.to_owned(), answer);
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|asked| *asked == name).count()
    }

    /// The most bytes that were written in one answer so far.
    pub(crate) fn most_sent(&self) -> u64 {
        self.0.lock().unwrap().most_sent
    }
}

fn serve(stream: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) -> std::io::Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(tls).expect("a connection"), stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head in ASCII");
    let name = head.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).expect("a path").to_owned();
    let answer = {
        let mut state = state.lock().unwrap();
        state.asked.push(name.clone());
        state.answers.get(&name).cloned()
    };
    let Some(answer) = answer else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
        return stream.flush();
    };
    say(&mut stream, &answer, state)
}

fn say(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    answer: &Answer,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut sent = 0;
    let mut write = |stream: &mut StreamOwned<_, _>, bytes: &[u8]| {
        stream.write_all(bytes)?;
        stream.flush()?;
        sent += bytes.len() as u64;
        let mut state = state.lock().unwrap();
        state.most_sent = state.most_sent.max(sent);
        Ok::<(), std::io::Error>(())
    };
    let Answer { head, body, then } = answer;
    write(stream, format!("HTTP/1.1 200 OK\r\n{head}").as_bytes())?;
    if *then == Then::EndlessHead {
        let line = format!("x-endless: {}\r\n", "x".repeat(1_000));
        loop {
            write(stream, line.as_bytes())?;
        }
    }
    write(stream, b"connection: close\r\n\r\n")?;
    match then {
        Then::Trickles => {
            for byte in body.iter().chain(std::iter::repeat(&0)) {
                write(stream, &[*byte])?;
                std::thread::sleep(TRICKLE);
            }
        }
        Then::Ends | Then::GoesOn | Then::Waits | Then::EndlessHead => write(stream, body)?,
    }
    match then {
        Then::GoesOn => loop {
            write(stream, &[0; PIECE_BYTES])?;
        },
        Then::Waits => {
            let mut byte = [0];
            stream.read(&mut byte).map(drop)?;
        }
        Then::Ends | Then::Trickles | Then::EndlessHead => {}
    }
    stream.conn.send_close_notify();
    stream.flush()
}
