//! The chaos proxy in front of a server that sends back what it gets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::binary;

/// What is sent through it.
const BYTES: usize = 60_000;

struct Proxy {
    child: Child,
    told: BufReader<ChildStdout>,
    address: SocketAddr,
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
        let mut command = binary("muster-load");
        command.args(["proxy", "--listen", "127.0.0.1:0", "--to", &echo().to_string()]).args(faults);
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
