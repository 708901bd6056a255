//! State that a test makes on the machine, and what the tables say of it, column by column.
//!
//! What needs root (a mount, a user, a unit file) is made where the test is root, and taken away with its guard.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use muster_load_tests::dev_fleet::DevFleet;
use serde_json::{Value, json};

use crate::support::{Service, folder, lacks_root, run, system, write};
use crate::tables::{ask, line};

#[test]
fn tables_show_state_that_was_just_made() {
    let fleet = DevFleet::start(1).unwrap();

    a_process_has_the_row_that_ps_prints(&fleet);
    sockets_have_rows_with_their_owner(&fleet);
    files_of_every_type_have_the_rows_that_find_prints(&fleet);
    certificates_have_the_rows_that_openssl_prints(&fleet);
    if !lacks_root() {
        a_mount_has_the_row_that_df_prints(&fleet);
        a_user_has_a_row_as_long_as_it_exists(&fleet);
        a_unit_file_has_a_row_as_long_as_it_exists(&fleet);
    }
}

/// Undoes something when it is dropped.
struct Undo(Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        drop(Command::new(&self.0[0]).args(&self.0[1..]).output());
    }
}

fn undo(words: &[&str]) -> Undo {
    Undo(words.iter().map(|word| (*word).to_owned()).collect())
}

/// A name that no other test uses.
fn unique(prefix: &str) -> String {
    format!("{prefix}{}", std::process::id())
}

fn a_process_has_the_row_that_ps_prints(fleet: &DevFleet) {
    let folder = folder();
    let program = folder.path().join(unique("mit-"));
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("3607");
    let process = Service::start(command, &folder.path().join("log"));
    let pid = process.pid().to_string();
    let ps =
        |column: &str| system("ps", &["-ww", "-o", &format!("{column}="), "-p", &pid]).out.trim().to_owned();
    let by_name = format!("SELECT * FROM processes WHERE cmdline LIKE '%{} 3607'", program.display());

    let found = ask(fleet, &by_name);
    let by_pid = ask(fleet, &format!("SELECT * FROM processes WHERE pid = {pid}"));

    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(line(&found[0], &["pid", "name", "cmdline"]), line(&by_pid[0], &["pid", "name", "cmdline"]));
    let told = ["pid", "ppid", "name", "cmdline", "uid", "user", "threads"];
    let printed = ["pid", "ppid", "comm", "args", "euid", "euser:32", "nlwp"].map(ps).join("|");
    assert_eq!(line(&found[0], &told), printed);
    assert_eq!(found[0]["path"], json!(program));
    let started = system("date", &["-d", &ps("lstart"), "+%s"]).out.trim().parse::<i64>().unwrap();
    assert!((found[0]["started_at"].as_i64().unwrap() - started).abs() <= 1, "{found:?}, ps: {started}");
    process.kill();
    assert_eq!(ask(fleet, &by_name), Vec::<Value>::new());
}

fn sockets_have_rows_with_their_owner(fleet: &DevFleet) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut wanted = vec![
        (tcp.local_addr().unwrap().port(), "tcp", "127.0.0.1"),
        (udp.local_addr().unwrap().port(), "udp", "127.0.0.1"),
    ];
    let six = TcpListener::bind("[::1]:0").ok();
    wanted.extend(six.as_ref().map(|six| (six.local_addr().unwrap().port(), "tcp", "::1")));
    let me = std::process::id();
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let sql = format!("SELECT * FROM listening_ports WHERE pid = {me}");

    let mut found: Vec<String> = ask(fleet, &sql)
        .iter()
        .map(|row| line(row, &["protocol", "address", "port", "pid", "process", "uid"]))
        .collect();

    found.sort();
    let mut rows: Vec<String> = wanted
        .into_iter()
        .map(|(port, protocol, address)| {
            format!("{protocol}|{address}|{port}|{me}|{}|{}", name.trim_end(), nix::unistd::geteuid())
        })
        .collect();
    rows.sort();
    assert_eq!(found, rows);
    drop((tcp, udp, six));
    assert_eq!(ask(fleet, &sql), Vec::<Value>::new());
}

fn files_of_every_type_have_the_rows_that_find_prints(fleet: &DevFleet) {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    write(&at("plain.txt"), "What the hash is known of.\n");
    write(&at("empty"), "");
    write(&at("with space 'and' quote"), "x");
    std::fs::create_dir(at("inner")).unwrap();
    std::os::unix::fs::symlink("plain.txt", at("link")).unwrap();
    system("mkfifo", &[at("pipe").to_str().unwrap()]);
    system("chmod", &["0640", at("plain.txt").to_str().unwrap()]);
    if !lacks_root() {
        system("chown", &["1:1", at("plain.txt").to_str().unwrap()]);
    }

    let sql = format!("SELECT * FROM files WHERE glob = '{}/*'", folder.path().display());
    let mut found: Vec<String> = ask(fleet, &sql)
        .iter()
        .map(|row| line(row, &["path", "type", "size", "mode", "uid", "owner", "gid", "mtime"]))
        .collect();

    let format = "%p|%y|%s|%m|%U|%u|%G|%Ts\n";
    let said = system(
        "find",
        &[folder.path().to_str().unwrap(), "-mindepth", "1", "-maxdepth", "1", "-printf", format],
    );
    let long = |line: &&str| {
        let types = [("|f|", "|file|"), ("|d|", "|directory|"), ("|l|", "|symlink|"), ("|p|", "|fifo|")];
        types.iter().fold((*line).to_owned(), |line, (short, long)| line.replacen(short, long, 1))
    };
    let mut rows: Vec<String> = said.lines().iter().map(long).collect();
    found.sort();
    rows.sort();
    assert_eq!(found, rows);

    let plain = at("plain.txt");
    let sql = format!("SELECT sha256, mode FROM files WHERE path = '{}'", plain.display());
    let hashed = ask(fleet, &sql);
    assert_eq!(hashed[0]["sha256"], system("sha256sum", &[plain.to_str().unwrap()]).out[..64]);
    let answer = ask(fleet, &format!("SELECT path FROM files WHERE path = '{}'", at("absent").display()));
    assert_eq!(answer, Vec::<Value>::new());
}

fn certificates_have_the_rows_that_openssl_prints(fleet: &DevFleet) {
    let folder = folder();
    let bundle = folder.path().join("bundle.pem");
    let mut files = Vec::new();
    for (name, days, key, basic) in [("one", "30", "ec", "CA:TRUE"), ("two", "400", "rsa", "CA:FALSE")] {
        let (pem, private) =
            (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
        let subject = format!("/C=DE/O=Muster, it/CN={name}.example.org");
        let basic = format!("basicConstraints=critical,{basic}");
        let key: &[&str] = if key == "ec" {
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        } else {
            &["-newkey", "rsa:2048"]
        };
        let mut request = Command::new("openssl");
        request
            .args(["req", "-x509", "-nodes", "-days", days, "-subj", &subject, "-addext", &basic])
            .args(key);
        run(request.arg("-keyout").arg(&private).arg("-out").arg(&pem)).with_code(0);
        files.push(pem);
    }
    let both: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    write(&bundle, &both);

    let columns =
        ["subject", "issuer", "serial", "not_before", "not_after", "sha256", "key_type", "key_bits", "is_ca"];
    let found = ask(fleet, &format!("SELECT * FROM certificates WHERE path = '{}'", bundle.display()));

    let mut found: Vec<String> = found.iter().map(|row| line(row, &columns)).collect();
    let mut rows: Vec<String> =
        vec![format!("{}|EC|256|1", printed(&files[0])), format!("{}|RSA|2048|0", printed(&files[1]))];
    found.sort();
    rows.sort();
    assert_eq!(found, rows);
}

/// What openssl prints of a certificate, joined as [`line`] does.
fn printed(file: &Path) -> String {
    let x509 = |option: &str| {
        let said = system(
            "openssl",
            &["x509", "-in", file.to_str().unwrap(), "-noout", "-nameopt", "RFC2253", option],
        );
        said.out.trim().split_once('=').unwrap().1.trim().to_owned()
    };
    let seconds = |option: &str| system("date", &["-d", &x509(option), "+%s"]).out.trim().to_owned();
    let der = file.with_extension("der");
    let (input, output) = (file.to_str().unwrap(), der.to_str().unwrap());
    system("openssl", &["x509", "-in", input, "-outform", "DER", "-out", output]);
    let sha256 = system("sha256sum", &[output]).out[..64].to_owned();
    [x509("-subject"), x509("-issuer"), x509("-serial"), seconds("-startdate"), seconds("-enddate"), sha256]
        .join("|")
}

fn a_mount_has_the_row_that_df_prints(fleet: &DevFleet) {
    let folder = folder();
    let place: PathBuf = folder.path().join("a mount");
    std::fs::create_dir(&place).unwrap();
    let path = place.to_str().unwrap();
    system("mount", &["-t", "tmpfs", "-o", "size=4m,nr_inodes=64,nosuid", "muster-it", path]);
    let mounted = undo(&["umount", path]);
    std::fs::write(place.join("taken"), vec![1_u8; 1_000_000]).unwrap();
    let sql = format!("SELECT *, device AS source FROM mounts WHERE path = '{path}'");

    let found = ask(fleet, &sql);

    let columns = ["source", "type", "size_bytes", "free_bytes", "inodes", "inodes_free"];
    let df = system("df", &["-B1", "--output=source,fstype,size,avail", path]);
    let inodes = system("df", &["-B1", "--output=itotal,iavail", path]);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("|");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(line(&found[0], &columns), format!("{}|{}", words(df.lines()[1]), words(inodes.lines()[1])));
    let options = found[0]["options"].as_str().unwrap();
    assert!(options.contains("nosuid") && options.contains("size=4096k"), "{options}");
    drop(mounted);
    assert_eq!(ask(fleet, &sql), Vec::<Value>::new());
}

fn a_user_has_a_row_as_long_as_it_exists(fleet: &DevFleet) {
    let name = unique("mit");
    system("useradd", &["-M", "-N", "-c", "Muster, it", "-d", "/nowhere", "-s", "/usr/sbin/nologin", &name]);
    let added = undo(&["userdel", &name]);
    let sql = format!("SELECT name, uid, gid, gecos, home, shell FROM users WHERE name = '{name}'");

    let found = ask(fleet, &sql);

    let entry = system("getent", &["passwd", &name]).out;
    let fields: Vec<&str> = entry.trim().split(':').collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let printed = [fields[0], fields[2], fields[3], fields[4], fields[5], fields[6]].join("|");
    assert_eq!(line(&found[0], &["name", "uid", "gid", "gecos", "home", "shell"]), printed);
    drop(added);
    assert_eq!(ask(fleet, &sql), Vec::<Value>::new());
}

fn a_unit_file_has_a_row_as_long_as_it_exists(fleet: &DevFleet) {
    let folder = Path::new("/run/systemd/system");
    // Programs take the folder itself for a sign of a running systemd: it goes away with the file that needed it.
    let made = (!folder.exists()).then(|| undo(&["rmdir", "/run/systemd/system"]));
    let name = format!("{}.service", unique("muster-it-"));
    let file = folder.join(&name);
    write(
        &file,
        "[Unit]\nDescription=Muster, just made\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    );
    let written = undo(&["rm", "-f", file.to_str().unwrap()]);
    let sql = format!("SELECT * FROM services WHERE name = '{name}'");

    let found = ask(fleet, &sql);

    let listed = system("systemctl", &["list-unit-files", "--root=/", "--no-legend", "--full", &name]);
    let state = listed.out.split_whitespace().nth(1).map(str::to_owned);
    assert_eq!(found.len(), 1, "{found:?}");
    let wanted = format!("Muster, just made|loaded|{}", file.display());
    assert_eq!(line(&found[0], &["description", "load_state", "path"]), wanted);
    if std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd") {
        assert_eq!(line(&found[0], &["active_state", "sub_state"]), "inactive|dead");
    }
    assert_eq!(found[0]["enabled"].as_str().map(str::to_owned), state);
    drop(written);
    assert_eq!(ask(fleet, &sql), Vec::<Value>::new());
    drop(made);
}
