//! Each table against the tool that people would ask instead.
use std::net::{TcpListener, UdpSocket};

use muster_endpoint::SqlValue;

use crate::support::{lacks, lines, rows, shell_lines, text};

/// Compares whole row sets.
#[track_caller]
fn agree(tool: &str, script: &str, sql: &str) {
    let Some(wanted) = shell_lines(tool, script) else { return };
    assert!(!wanted.is_empty(), "`{script}` lists nothing");
    assert_eq!(lines(sql), wanted, "{sql}\nagainst {script}");
}

#[test]
fn users_agree_with_getent() {
    agree(
        "getent",
        "getent passwd -s files | cut -d: -f1,3,4,5,6,7 --output-delimiter='|'",
        "SELECT name, uid, gid, gecos, home, shell FROM users",
    );
}

#[test]
fn packages_agree_with_dpkg_query() {
    agree(
        "dpkg-query",
        "dpkg-query -W -f '${Package}|${Version}|${Architecture}|${Status}|${source:Package}|${Installed-Size}\\n'",
        "SELECT name, version, architecture, status, source, installed_bytes / 1024 FROM packages",
    );
}

#[test]
fn services_agree_with_systemctl() {
    agree(
        "systemctl",
        "systemctl --root=/ list-unit-files --type=service --no-legend --no-pager --full | awk '{print $1\"|\"$2}'",
        "SELECT name, enabled FROM services WHERE path LIKE '%/' || name",
    );
}

#[test]
fn mounts_agree_with_findmnt() {
    agree(
        "findmnt",
        "findmnt --raw --noheadings --notruncate -o SOURCE,TARGET,FSTYPE | sed 's/\\[[^ ]*\\]//; s/ /|/g; s/\\\\x20/ /g'",
        "SELECT device, path, type FROM mounts",
    );
}

#[test]
fn sizes_of_mounts_agree_with_df() {
    agree(
        "df",
        "df --block-size=1 --output=target,size,itotal / | tail -n +2 | awk '{print $1\"|\"$2\"|\"$3}'",
        "SELECT path, size_bytes, inodes FROM mounts WHERE path = '/' GROUP BY path",
    );
}

#[test]
fn interfaces_agree_with_ip() {
    agree(
        "ip",
        "ip -o address | awk '{split($4, a, \"/\"); print $2\"|\"$3\"|\"a[1]\"|\"a[2]}'",
        "SELECT name, family, address, prefix_length FROM interfaces WHERE address IS NOT NULL",
    );
    agree(
        "ip",
        "ip -o link | sed -E 's/^[0-9]+: ([^:@]+).* mtu ([0-9]+) .*link\\/[a-z0-9]+ ([0-9a-f:]+).*/\\1|\\2|\\3/'",
        "SELECT DISTINCT name, mtu, mac FROM interfaces",
    );
}

#[test]
fn routes_agree_with_ip() {
    let script = "(ip route show table main | sed 's/^/inet /'; ip -6 route show table main | sed 's/^/inet6 /') \
                  | awk '{via=\"\"; dev=\"\"; metric=\"\"; for (i = 3; i < NF; i++) { if ($i == \"via\") via=$(i+1); \
                  if ($i == \"dev\") dev=$(i+1) } print $1\"|\"$2\"|\"via\"|\"dev}'";
    let sql = "SELECT family, CASE WHEN prefix_length = 0 THEN 'default' \
               WHEN prefix_length = iif(family = 'inet', 32, 128) THEN destination \
               ELSE destination || '/' || prefix_length END, gateway, interface FROM routes";
    let Some(wanted) = shell_lines("ip", script) else { return };
    assert_eq!(lines(sql), wanted);
}

#[test]
fn disks_agree_with_lsblk() {
    agree(
        "lsblk",
        "lsblk --bytes --nodeps --noheadings --raw -o NAME,SIZE,ROTA,RM | tr ' ' '|'",
        "SELECT name, size_bytes, rotational, removable FROM disks",
    );
}

#[test]
fn the_operating_system_agrees_with_uname() {
    agree("uname", "echo \"$(uname -r)|$(uname -m)\"", "SELECT kernel, arch FROM os");
    agree("nproc", "echo \"$(hostname)|$(nproc --all)\"", "SELECT hostname, logical_cores FROM host, cpu");
    agree("date", "echo $(( $(date +%s) / 100 ))", "SELECT unix / 100 FROM time");
    assert_eq!(lines("SELECT utc = strftime('%Y-%m-%dT%H:%M:%SZ', unix, 'unixepoch') FROM time"), ["1"]);
}

#[test]
fn memory_agrees_with_the_kernel() {
    agree(
        "awk",
        "awk '/^MemTotal|^SwapTotal/ {printf \"%.0f\\n\", $2 * 1024}' /proc/meminfo | paste -sd'|'",
        "SELECT total_bytes, swap_total_bytes FROM memory",
    );
}

#[test]
fn this_process_agrees_with_ps() {
    let pid = std::process::id();
    let columns = "pid,ppid,comm,state,uid,user";

    let Some(wanted) = shell_lines(
        "ps",
        &format!("ps -o {columns} --no-headers -p {pid} | awk '{{print $1\"|\"$2\"|\"$3\"|\"$5\"|\"$6}}'"),
    ) else {
        return;
    };

    assert_eq!(lines(&format!("SELECT pid, ppid, name, uid, user FROM processes WHERE pid = {pid}")), wanted);
    let Some(arguments) = shell_lines("ps", &format!("ps -ww -o args --no-headers -p {pid}")) else { return };
    assert_eq!(lines(&format!("SELECT cmdline FROM processes WHERE pid = {pid}")), arguments);
}

#[test]
fn this_process_has_its_program_and_start() {
    let pid = std::process::id();
    let program = std::env::current_exe().unwrap();

    let rows = rows(&format!(
        "SELECT path, unix - started_at, rss_bytes, threads FROM processes, time WHERE pid = {pid}"
    ));

    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row[0].as_text(), program.to_str());
    assert!((-2..86_400).contains(&row[1].as_integer().unwrap()), "{row:?}");
    assert!(row[2].as_integer().unwrap() > 0 && row[3].as_integer().unwrap() > 0, "{row:?}");
}

#[test]
fn every_process_of_ps_is_listed() {
    let Some(before) = shell_lines("ps", "ps -e -o pid= | tr -d ' '") else { return };

    let listed = lines("SELECT pid FROM processes");

    let Some(after) = shell_lines("ps", "ps -e -o pid= | tr -d ' '") else { return };
    let stayed: Vec<_> = before.iter().filter(|pid| after.contains(pid)).collect();
    assert!(stayed.iter().all(|pid| listed.contains(pid)), "{listed:?}\nagainst {stayed:?}");
}

#[test]
fn listening_sockets_have_their_process() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let pid = std::process::id();

    let found = lines(&format!("SELECT protocol, address, port FROM listening_ports WHERE pid = {pid}"));

    let mine = |protocol: &str, port: u16| format!("{protocol}|127.0.0.1|{port}");
    assert!(found.contains(&mine("tcp", tcp.local_addr().unwrap().port())), "{found:?}");
    assert!(found.contains(&mine("udp", udp.local_addr().unwrap().port())), "{found:?}");
}

#[test]
fn listening_sockets_agree_with_ss() {
    let _tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "ss -H -ltun | awk '{n = match($5, /:[0-9]+$/); a = substr($5, 1, n - 1); gsub(/[][]/, \"\", a); \
                  sub(/%.*/, \"\", a); print $1\"|\"a\"|\"substr($5, n + 1)}'";
    let Some(before) = shell_lines("ss", script) else { return };

    // `ss` writes `*` for a socket of both families.
    let listed = lines("SELECT protocol, address, port FROM listening_ports");

    let Some(after) = shell_lines("ss", script) else { return };
    for line in before.iter().filter(|line| after.contains(line)) {
        assert!(listed.contains(&line.replace('*', "::")), "{line} is not in {listed:?}");
    }
}

#[test]
fn files_agree_with_stat_and_sha256sum() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    std::fs::write(format!("{root}/a file"), "abc").unwrap();
    std::fs::create_dir(format!("{root}/folder")).unwrap();
    std::fs::write(format!("{root}/folder/deep"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", format!("{root}/link")).unwrap();

    agree(
        "stat",
        &format!("cd / && find {root} -exec stat -c '%n|%a|%s|%u|%U|%g|%Y|%Z' {{}} +"),
        &format!(
            "SELECT path, mode, size, uid, owner, gid, mtime, ctime FROM files WHERE path = '{root}' OR path GLOB '{root}/*'"
        ),
    );
    agree(
        "sha256sum",
        &format!("find {root} -type f -exec sha256sum {{}} + | sed 's/  /|/'"),
        &format!("SELECT sha256, path FROM files WHERE path GLOB '{root}/*' AND type = 'file'"),
    );
    assert_eq!(lines(&format!("SELECT type FROM files('{root}/*')")), ["directory", "file", "symlink"]);
    assert_eq!(
        lines(&format!("SELECT count(*) FROM files WHERE path IN ('{root}/link', '{root}/none')")),
        ["1"]
    );
}

#[test]
fn certificates_agree_with_openssl() {
    let script = "for f in $(ls /etc/ssl/certs/*.pem | head -40); do echo \"$f|$(openssl x509 -in $f -noout -serial \
                  | cut -d= -f2)|$(openssl x509 -in $f -noout -fingerprint -sha256 | cut -d= -f2 | tr -d : | tr A-F a-f)\
                  |$(date -u -d \"$(openssl x509 -in $f -noout -enddate | cut -d= -f2)\" +%s)\
                  |$(openssl x509 -in $f -noout -text | sed -n 's/.*Public-Key: (\\([0-9]*\\) bit)/\\1/p')\"; done";
    let Some(wanted) = shell_lines("openssl", script) else { return };

    let sql = "SELECT path, serial, sha256, not_after, key_bits FROM certificates WHERE path GLOB '/etc/ssl/certs/*.pem'";
    let found = lines(sql);

    for line in wanted.iter().filter(|line| line.starts_with("/etc/ssl/certs/") && !line.contains("||")) {
        assert!(found.contains(line), "{line}");
    }
}

#[test]
fn names_of_certificates_agree_with_openssl() {
    let script = "for f in $(ls /etc/ssl/certs/*.pem | head -40); do \
                  echo \"$f|$(openssl x509 -in $f -noout -subject -nameopt RFC2253,-esc_msb,utf8 | cut -d= -f2-)\"; done";
    let Some(wanted) = shell_lines("openssl", script) else { return };

    let found = lines("SELECT path, subject FROM certificates WHERE path GLOB '/etc/ssl/certs/*.pem'");

    for line in wanted.iter().filter(|line| line.starts_with("/etc/ssl/certs/")) {
        assert!(found.contains(line), "{line}");
    }
}

#[test]
fn without_a_constraint_certificates_are_those_of_the_system() {
    let paths = lines("SELECT DISTINCT path FROM certificates");

    assert!(paths.iter().all(|path| path.starts_with("/etc/ssl/certs/")), "{paths:?}");
}

#[test]
fn every_table_answers_with_its_declared_columns() {
    for table in muster_endpoint::schema().iter().filter(|table| table.needs.is_none()) {
        let columns: Vec<_> = table.visible().collect();

        let found = rows(&format!("SELECT * FROM {} LIMIT 3", table.name));

        assert!(found.iter().all(|row| row.len() == columns.len()), "{}: {found:?}", table.name);
    }
}

#[test]
fn one_query_joins_tables() {
    let program = std::env::current_exe().unwrap();
    let pid = std::process::id();

    let found = rows(&format!(
        "SELECT f.path, f.size FROM processes AS p JOIN files AS f ON f.path = p.path WHERE p.pid = {pid}"
    ));

    assert_eq!(found.len(), 1);
    assert_eq!(text(&found[0][0]), program.to_str().unwrap());
    let size = i64::try_from(std::fs::metadata(program).unwrap().len()).unwrap();
    assert_eq!(found[0][1], SqlValue::Integer(size));
}

#[test]
fn a_mount_with_a_space_in_its_name_is_listed() {
    if lacks("root", !nix::unistd::geteuid().is_root(), "run it as root, who may mount") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a b");
    std::fs::create_dir(&place).unwrap();
    let mounted = nix::mount::mount(
        Some("muster-test"),
        &place,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=1m"),
    );
    if lacks("mount", mounted.is_err(), "root here may not mount a tmpfs; give it CAP_SYS_ADMIN") {
        return;
    }

    let found = lines("SELECT path, type, size_bytes FROM mounts WHERE device = 'muster-test'");

    nix::mount::umount(&place).unwrap();
    assert_eq!(found, [format!("{}|tmpfs|1048576", place.display())]);
}
