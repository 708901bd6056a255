//! A timestamp authority: `openssl ts` behind a small HTTP server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

/// How openssl is asked for a P-256 key.
pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A root, an issuing CA and a timestamp signer, and how `openssl ts` answers.
pub(crate) struct TimestampAuthority {
    dir: TempDir,
}

impl TimestampAuthority {
    /// An authority whose signer has a key of that kind.
    pub(crate) fn new(key: &[&str]) -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["root", "issuing", "tsa"] {
            let file = format!("{name}.key");
            authority.run(&[&["genpkey"], key, &["-out", &file]].concat());
        }
        let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
        authority.write("ca.ext", &format!("{ca}subjectKeyIdentifier=hash\n"));
        authority.write(
            "tsa.ext",
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=critical,timeStamping\nsubjectKeyIdentifier=hash\n",
        );
        for line in [
            "req -new -key root.key -subj /CN=stamps-root -out root.csr",
            "x509 -req -in root.csr -signkey root.key -days 3650 -extfile ca.ext -out root.pem",
            "req -new -key issuing.key -subj /CN=stamps-issuing -out issuing.csr",
            "x509 -req -in issuing.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3000 -extfile ca.ext -out issuing.pem",
            "req -new -key tsa.key -subj /CN=stamps/O=Acme -out tsa.csr",
            "x509 -req -in tsa.csr -CA issuing.pem -CAkey issuing.key -CAcreateserial -days 400 -extfile tsa.ext -out tsa.pem",
        ] {
            authority.openssl(line);
        }
        authority.chain(&["issuing.pem"]);
        authority.configure("");
        authority
    }

    /// What is sent along with the signer's certificate.
    pub(crate) fn chain(&self, files: &[&str]) {
        let all: Vec<u8> = files.iter().flat_map(|file| std::fs::read(self.path(file)).unwrap()).collect();
        std::fs::write(self.path("chain.pem"), all).unwrap();
    }

    /// Writes its configuration; lines of `changes` win over the usual ones.
    pub(crate) fn configure(&self, changes: &str) {
        let usual = [
            ("serial", "serial"),
            ("signer_cert", "tsa.pem"),
            ("certs", "chain.pem"),
            ("signer_key", "tsa.key"),
            ("signer_digest", "sha256"),
            ("default_policy", "1.3.6.1.3.20263.9"),
            ("digests", "sha256,sha512"),
            ("ess_cert_id_alg", "sha256"),
            ("tsa_name", "yes"),
        ];
        let mut text = "[tsa]\ndefault_tsa = it\n[it]\n".to_owned();
        for (key, value) in usual {
            if !changes.lines().any(|line| line.starts_with(&format!("{key} "))) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        self.write("ts.cnf", &(text + changes));
        self.write("serial", "01\n");
    }

    /// Answers a request as `openssl ts` does.
    pub(crate) fn answer(&self, query: &[u8]) -> Vec<u8> {
        std::fs::write(self.path("query.tsq"), query).unwrap();
        self.openssl("ts -reply -config ts.cnf -queryfile query.tsq -out answer.tsr");
        std::fs::read(self.path("answer.tsr")).unwrap()
    }

    /// Makes the list of its issuing CA; with `reason`, as openssl's options, the signer stands on it.
    pub(crate) fn list(&self, reason: Option<&str>) -> Vec<u8> {
        let ca = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n";
        for (file, text) in [("ca.cnf", ca), ("index.txt", ""), ("crlnumber", "01\n")] {
            self.write(file, text);
        }
        let names = "-config ca.cnf -keyfile issuing.key -cert issuing.pem";
        if let Some(reason) = reason {
            self.openssl(&format!("ca {names} -revoke tsa.pem {reason}"));
        }
        self.openssl(&format!("ca {names} -gencrl -out issuing.crl"));
        std::fs::read(self.path("issuing.crl")).unwrap()
    }

    pub(crate) fn openssl(&self, arguments: &str) {
        self.run(&arguments.split_whitespace().collect::<Vec<_>>());
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) {
        run(self.dir.path(), arguments);
    }
}

/// Runs openssl, which must succeed.
pub(crate) fn run(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves an authority over HTTP (RFC 3161 §3.4) until it is dropped.
pub(crate) struct Served {
    pub(crate) url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Answers with what `authority` says, as the type `kind`.
    pub(crate) fn new(authority: TimestampAuthority, kind: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/stamp", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                answer(&authority, stream, kind);
            }
        });
        Self { url, stop, thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address = self.url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/stamp"));
        drop(TcpStream::connect(address.unwrap_or_default()));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(authority: &TimestampAuthority, mut stream: TcpStream, kind: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut asked_for) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if let Some(value) = lower.strip_prefix("content-type:") {
            asked_for = value.trim().to_owned();
        }
    }
    let mut query = vec![0; length];
    reader.read_exact(&mut query).unwrap();
    assert_eq!(asked_for, "application/timestamp-query");
    let body = authority.answer(&query);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}
