//! The chaos proxy in front of a server that sends back what it gets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::support::binary;

/// What is sent through it.
const BYTES: usize = 60_000;

pub(super) struct Proxy {
    child: Child,
    told: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Proxy {
    /// In front of an echo.
    fn start(faults: &[&str]) -> Self {
        Self::before(&echo().to_string(), faults)
    }

    /// In front of a server.
    pub(super) fn before(server: &str, faults: &[&str]) -> Self {
        Self::of(binary("muster-load"), server, faults)
    }

    /// A command to which what it has to do is added.
    fn of(mut command: Command, server: &str, faults: &[&str]) -> Self {
        command.args(["proxy", "--listen", "127.0.0.1:0", "--to", server]).args(faults);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a proxy");
        let mut told = BufReader::new(child.stdout.take().expect("its output"));
        let first = line(&mut told);
        let address = first["listening"].as_str().and_then(|address| address.parse().ok());
        Self { child, told, address: address.unwrap_or_else(|| panic!("no address: {first}")) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        stream
    }

    /// Sends zeros, closes, and gives what comes back, and the faults that were told until then, without their moments.
    fn echoed(&mut self) -> (Vec<u8>, Vec<String>) {
        let mut stream = self.connect();
        stream.write_all(&vec![0; BYTES]).expect("sent");
        stream.shutdown(Shutdown::Write).expect("closed");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("read");
        self.child.kill().expect("killed");
        let mut faults: Vec<String> = std::iter::from_fn(|| {
            let mut text = String::new();
            (self.told.read_line(&mut text).expect("a line") > 0).then_some(text)
        })
        .map(|text| {
            let mut fault: Value = serde_json::from_str(&text).expect("JSON");
            fault.as_object_mut().expect("an object").remove("after_ms");
            fault.to_string()
        })
        .collect();
        // The two directions are told as they come.
        faults.sort();
        (back, faults)
    }
}

#[test]
fn the_same_seed_gives_the_same_faults_and_another_one_others() {
    let faults = |seed: &str| {
        Proxy::start(&["--corrupt", "0.1%", "--loss", "10%", "--seed", seed, "--jitter", "2ms"]).echoed()
    };
    let (first, again, other) = (faults("7"), faults("7"), faults("8"));

    assert_eq!(first.0.len(), BYTES);
    assert!(first.1.iter().any(|fault| fault.contains("corrupt")), "{:?}", first.1);
    assert!(first.1.iter().any(|fault| fault.contains("lost")), "{:?}", first.1);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn without_faults_everything_comes_as_it_was() {
    let (back, faults) = Proxy::start(&[]).echoed();

    assert_eq!((back, faults), (vec![0; BYTES], vec![]));
}

#[test]
fn a_delay_counts_in_each_direction() {
    let proxy = Proxy::start(&["--delay", "60ms"]);
    let mut stream = proxy.connect();
    let started = Instant::now();

    stream.write_all(b"x").expect("sent");
    stream.read_exact(&mut [0; 1]).expect("read");

    assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());
}

#[test]
fn a_connection_is_cut_at_its_time_and_told() {
    let mut proxy = Proxy::start(&["--cut-after", "100ms"]);
    let mut stream = proxy.connect();

    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "the connection ends");

    assert_eq!(line(&mut proxy.told)["fault"], "cut");
}

#[test]
fn a_half_closed_connection_still_takes_what_is_sent() {
    let mut proxy = Proxy::start(&["--half-close-after", "100ms"]);
    let mut stream = proxy.connect();

    assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);

    assert_eq!(line(&mut proxy.told)["fault"], "half_close");
    stream.write_all(b"still").expect("sent");
}

#[test]
fn a_slow_reader_takes_its_time() {
    let proxy = Proxy::start(&["--slow-read", "4KiB/s"]);
    let mut stream = proxy.connect();
    let started = Instant::now();

    stream.write_all(&[0; 2_048]).expect("sent");
    stream.read_exact(&mut [0; 2_048]).expect("read");
    stream.write_all(&[0; 2_048]).expect("sent");
    stream.read_exact(&mut [0; 2_048]).expect("read");

    assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
}

#[test]
fn who_half_closed_goes_on_reading_however_much_comes() {
    let mut proxy = Proxy::start(&["--half-close-after", "50ms"]);
    let mut stream = proxy.connect();
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);
    assert_eq!(line(&mut proxy.told)["fault"], "half_close");

    // More than the kernel and the proxy hold: the echo comes back, and somebody has to take it.
    for _ in 0..64 {
        stream.write_all(&[7; 1 << 20]).expect("sent");
    }
}

#[test]
fn a_slow_reader_lets_the_sender_notice_soon() {
    let proxy = Proxy::start(&["--slow-read", "1KiB/s"]);
    let stream = proxy.connect();
    setsockopt(&stream, sockopt::SndBuf, &4_096).expect("a small buffer");
    stream.set_nonblocking(true).expect("no waiting");
    let mut taken = 0;
    let until = Instant::now() + Duration::from_millis(500);

    while Instant::now() < until {
        match (&stream).write(&[0; 1_024]) {
            Ok(count) => taken += count,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }

    assert!(taken < 48 * 1_024, "{taken} bytes were taken of who is read at 1 KiB a second");
}

#[test]
fn more_connections_than_descriptors_wait_and_end_nothing() {
    // A connection takes two descriptors: with one limit or the other none is left when the next is to be accepted.
    for descriptors in [300, 301] {
        let mut limited = Command::new("sh");
        let load = binary("muster-load").get_program().to_string_lossy().into_owned();
        limited.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), &load]);
        let proxy = Proxy::of(limited, &echo().to_string(), &[]);
        let many: Vec<TcpStream> = (0..160).map(|_| proxy.connect()).collect();
        // All that can be are carried.
        std::thread::sleep(Duration::from_millis(300));

        drop(many);

        let mut stream = proxy.connect();
        stream.write_all(b"x").expect("sent");
        stream.read_exact(&mut [0; 1]).expect("read");
    }
}

#[test]
fn who_does_not_read_the_faults_holds_up_no_connection_without_one() {
    let proxy = Proxy::start(&["--corrupt", "5%"]);
    let mut faulty = proxy.connect();
    faulty.set_write_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    // Lines of faults for a hundred times what a pipe holds; nobody reads them.
    while faulty.write(&[0; 65_536]).is_ok() {}

    // The first byte of hardly any connection is turned.
    let is_carried = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0; 1]).is_ok()
    };
    assert!((0..4).any(|_| is_carried(proxy.connect())), "no connection is carried");
}

/// A server that sends back what it gets; it ends with the test.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().expect("a half"), stream);
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Write));
            });
        }
    });
    address
}

fn line(told: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    told.read_line(&mut text).expect("a line");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
