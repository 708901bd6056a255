//! A distribution point of one CA, on a port of its own, that does as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use muster_pki::UnixTime;
use muster_pki::authority::{Authority, Revoked};

/// Between two looks at whether it is to be up.
const LOOK: Duration = Duration::from_millis(20);
const HOUR: u64 = 3_600;

/// What a distribution point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Gives a fresh list with a number that rises.
    Good,
    /// Refuses connections.
    Down,
    /// Takes the request and never answers.
    Slow,
    /// Says 200, and sends no list.
    Garbage,
    /// Gives a list with a higher number that ended an hour ago.
    Stale,
    /// Gives a list that is good for a day, with a lower number.
    RolledBack,
    /// Gives a list in the CA's name that a stranger signed, good for a day.
    Forged,
    /// Gives a good list of another CA.
    OfAnother,
    /// Gives a list that ended a day and an hour ago.
    LongAgo,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    asked: usize,
    last_good: Option<Instant>,
    has_ended: bool,
}

/// A distribution point; it ends with the test.
pub(super) struct Point {
    name: String,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    authority: Arc<Authority>,
    thread: Option<JoinHandle<()>>,
}

impl Point {
    /// Starts it, good, on a free port; a good list is good for `fresh`.
    pub(super) fn start(name: &str, authority: Authority, other: Authority, fresh: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { answer: Answer::Good, asked: 0, last_good: None, has_ended: false };
        let (state, authority) = (Arc::new(Mutex::new(state)), Arc::new(authority));
        let lists = Lists { authority: Arc::clone(&authority), other, fresh: fresh.as_secs() };
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve(listener, address, &shared, &lists));
        Self { name: name.to_owned(), address, state, authority, thread: Some(thread) }
    }

    pub(super) fn set(&self, answer: Answer) {
        self.state().answer = answer;
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/{}.crl", self.address, self.name)
    }

    pub(super) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// How many requests came.
    pub(super) fn asked(&self) -> usize {
        self.state().asked
    }

    /// When the last good list was given.
    pub(super) fn last_good(&self) -> Option<Instant> {
        self.state().last_good
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        self.state().has_ended = true;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Lists {
    authority: Arc<Authority>,
    other: Authority,
    fresh: u64,
}

fn serve(listener: TcpListener, address: SocketAddr, state: &Mutex<State>, lists: &Lists) {
    let mut up = Some(listener);
    let mut hung = Vec::new();
    loop {
        let answer = {
            let state = state.lock().unwrap();
            if state.has_ended {
                return;
            }
            state.answer
        };
        if answer == Answer::Down {
            up = None;
        } else if up.is_none() {
            up = TcpListener::bind(address).ok();
        }
        let Some(listener) = &up else {
            std::thread::sleep(LOOK);
            continue;
        };
        listener.set_nonblocking(true).unwrap();
        match listener.accept() {
            Ok((stream, _)) => hung.extend(handle(stream, answer, state, lists)),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Answers one request; a stream that comes back is to be held open.
fn handle(stream: TcpStream, answer: Answer, state: &Mutex<State>, lists: &Lists) -> Option<TcpStream> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut head = BufReader::new(&stream).lines();
    while head.next()?.is_ok_and(|line| !line.is_empty()) {}
    {
        let mut state = state.lock().unwrap();
        state.asked += 1;
        if answer == Answer::Good {
            state.last_good = Some(Instant::now());
        }
    }
    if answer == Answer::Slow {
        return Some(stream);
    }
    let body = lists.body(answer);
    let mut answered = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/pkix-crl\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    answered.push_str(&body);
    // A Switch that hung up needs no answer.
    drop((&stream).write_all(answered.as_bytes()));
    None
}

impl Lists {
    /// The list that goes with an answer. Numbers are seconds since 1970, so that a good list is always newer.
    fn body(&self, answer: Answer) -> String {
        let now = UnixTime::now().as_secs();
        match answer {
            Answer::Garbage | Answer::Down | Answer::Slow => "<html>It works!</html>\n".repeat(100),
            Answer::Good => list(&self.authority, now, now, now + self.fresh),
            Answer::Stale => list(&self.authority, now, now - 2 * HOUR, now - HOUR),
            Answer::LongAgo => list(&self.authority, now, now - 26 * HOUR, now - 25 * HOUR),
            Answer::RolledBack => list(&self.authority, 7, now, now + 24 * HOUR),
            Answer::OfAnother => list(&self.other, now, now, now + self.fresh),
            Answer::Forged => {
                let name = self.authority.certificate().common_name().unwrap().to_owned();
                let stranger = Authority::root(&name, Duration::from_secs(HOUR), at(now)).unwrap();
                list(&stranger, now, now, now + 24 * HOUR)
            }
        }
    }
}

/// A list with one entry.
fn list(authority: &Authority, number: u64, from: u64, until: u64) -> String {
    let revoked = Revoked { serial_hex: "0badc0de".to_owned(), at: at(from) };
    authority.crl(&[revoked], number, at(from), at(until)).unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
