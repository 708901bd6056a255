//! A client without the rights that its sandbox would like to have.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use muster_proto::common::v1::TargetState;
use muster_proto::common::v1::value::Kind;

use crate::lab::Lab;
use crate::switch::FakeSwitch;

/// `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

/// A client as a program, killed with the test.
struct Program(Child);

impl Program {
    /// Starts it as `nobody`, who may make no control group.
    fn start_as_nobody(lab: &Lab) -> Self {
        let folder = lab.folder.path();
        let config = lab.config();
        let text = |path: &Path| format!("{:?}", path.to_str().unwrap());
        let file = |name: &str| text(&folder.join(name));
        // The build's own folder need not be open to everybody.
        let program = folder.join("muster-client");
        std::fs::copy(env!("CARGO_BIN_EXE_muster-client"), &program).unwrap();
        let toml = format!(
            "switch = {:?}\ntenant = {:?}\ndata_dir = {}\ncrls = [{}]\n\
             [tls]\ncertificate = {}\nkey = {}\n\
             [trust]\nswitch = {}\nauthors = {}\norders = {}\nlicences = {}\n",
            config.switch,
            config.tenant,
            text(&config.data_dir),
            file("servers.crl"),
            file("device.pem"),
            file("device.key"),
            file("servers.pem"),
            file("authors.pem"),
            file("orders.pem"),
            file("licences.pem"),
        );
        std::fs::write(folder.join("client.toml"), toml).unwrap();
        give_away(folder);
        let child = Command::new(&program)
            .args(["run", "--config"])
            .arg(folder.join("client.toml"))
            .stdin(Stdio::null())
            .uid(NOBODY)
            .gid(NOBODY)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn give_away(folder: &Path) {
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        std::os::unix::fs::chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_may_make_no_control_group_answers_and_tells_of_it() {
    if lacks("root", !nix::unistd::geteuid().is_root(), "run it as root, who may become another user") {
        return;
    }
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let _client = Program::start_as_nobody(&lab);
    let mut session = switch.accept(&lab).await;

    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;

    assert_eq!((result.state(), result.detail.as_str()), (TargetState::Answered, ""));
    assert_eq!(result.rows[0].values[0].kind, Some(Kind::Integer(42)));
    let missing = &result.sandbox_missing;
    assert!(missing.iter().any(|layer| layer.starts_with("cgroup: ")), "{missing:?}");
}

/// Whether this machine lacks something that a test needs, which fails the test, unless `MUSTER_TEST_MAY_SKIP` names it.
#[expect(clippy::print_stderr, reason = "a skip is loud")]
#[track_caller]
pub(crate) fn lacks(name: &str, is_missing: bool, fix: &str) -> bool {
    let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
    let may = may_skip.split(',').any(|one| one.trim() == name);
    assert!(!is_missing || may, "needs {name}: {fix}; or skip such tests with MUSTER_TEST_MAY_SKIP={name}");
    if is_missing {
        eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names {name}");
    }
    is_missing
}
