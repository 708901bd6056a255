//! Scripts as processes: what they answer, what they cannot do, and what is left of them.
use std::path::Path;
use std::time::{Duration, Instant};

use muster_endpoint::{
    Answer, Content, Given, HelperCommand, QueryError, QueryLimits, Reach, RowColumn, RowKind,
    SandboxProfile, Script, ScriptText, SqlValue, run_script,
};
use tempfile::TempDir;

use crate::hostile::{CANARY_SLEEP, strings};
use crate::sandbox::can_make_every_layer;
use crate::support::{helper, lacks};

pub(crate) fn script(text: &str) -> Script {
    Script {
        interpreter: "/bin/sh".into(),
        text: ScriptText::Inline(text.to_owned()),
        arguments: Vec::new(),
        parameters: Vec::new(),
        columns: Some(vec![RowColumn { name: "said".to_owned(), kind: RowKind::Text }]),
        limits: QueryLimits { run_time: Duration::from_secs(30), rows: 100, bytes: 64 * 1024 },
        sandbox: SandboxProfile::Standard,
        reach: Reach::Reads,
        readable: Vec::new(),
    }
}

pub(crate) fn action(text: &str) -> Script {
    Script { reach: Reach::Changes, ..script(text) }
}

pub(crate) fn within(run_time: Duration, script: Script) -> Script {
    Script { limits: QueryLimits { run_time, ..script.limits }, ..script }
}

pub(crate) fn run(script: Script) -> Result<Answer, QueryError> {
    run_by(&helper(), script)
}

pub(crate) fn run_by(helper: &HelperCommand, script: Script) -> Result<Answer, QueryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run_script(helper, script))
}

/// What a script says in its one column.
#[track_caller]
fn said(script: Script) -> Vec<String> {
    let rows = run(script).unwrap().rows;
    rows.iter().map(|row| row[0].as_text().unwrap_or("null").to_owned()).collect()
}

#[track_caller]
pub(crate) fn problem(script: Script) -> String {
    let error = run(script).unwrap_err();
    let QueryError::Script { message } = error else { panic!("{error:?}") };
    message
}

/// Processes that were called with this.
pub(crate) fn processes(with: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(with)).collect()
}

#[track_caller]
pub(crate) fn gone(with: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if processes(with).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?} are left", processes(with));
}

fn is_refused_without_landlock(outcome: &Result<Answer, QueryError>) -> bool {
    lacks(
        "landlock",
        matches!(outcome, Err(QueryError::Unconfined { .. })),
        "use a kernel of 5.13 or later with it in CONFIG_LSM",
    )
}

#[test]
fn a_script_is_given_values_as_words_and_as_json_and_answers_rows() {
    let value = |text: &str| Given::Value(SqlValue::from(text));
    let script = Script {
        arguments: vec![value("-n; $(id)"), Given::Boolean(true), Given::Value(SqlValue::Integer(-7))],
        parameters: vec![
            ("days".to_owned(), Given::Value(SqlValue::Integer(3))),
            ("all".to_owned(), Given::Boolean(false)),
            ("ratio".to_owned(), Given::Value(SqlValue::Real(0.5))),
            ("path".to_owned(), value("a\"b\nc")),
        ],
        columns: Some(
            [
                ("count", RowKind::Integer),
                ("is", RowKind::Boolean),
                ("one", RowKind::Text),
                ("in", RowKind::Text),
            ]
            .map(|(name, kind)| RowColumn { name: name.to_owned(), kind })
            .to_vec(),
        ),
        ..script(
            r#"read -r json
               json=$(printf %s "$json" | sed 's/[\\"]/\\&/g')
               printf '{"one":"%s","count":%d,"is":%s,"in":"%s"}\n' "$1" "$3" "$2" "$json""#,
        )
    };

    let answer = run(script).unwrap();

    let json = r#"{"all":false,"days":3,"path":"a\"b\nc","ratio":0.5}"#;
    let wanted = [SqlValue::Integer(-7), SqlValue::Integer(1), "-n; $(id)".into(), json.into()];
    assert_eq!(answer.rows, [wanted]);
    assert!(!answer.truncated);
    assert!(answer.columns.iter().map(|column| column.name.as_str()).eq(["count", "is", "one", "in"]));
}

#[test]
fn a_script_has_an_environment_and_a_folder_of_its_own_that_go_with_it() {
    let text = r#"echo x > "$HOME/file" && mkdir "$TMPDIR/folder" && cat "$HOME/file" >/dev/null || exit 1
                  printf '{"said":"%s"}\n' "$(env | grep -v ^_= | grep -v ^PWD= | cut -d= -f1 | sort | tr '\n' ' ')" "$HOME" "$PWD" "$(stat -c %a .)" "$LANG""#;

    for script in [script(text), action(text)] {
        let said = said(script);

        let [environment, home, folder, mode, language] = &said[..] else { panic!("{said:?}") };
        assert_eq!(environment.split_whitespace().collect::<Vec<_>>(), ["HOME", "LANG", "PATH", "TMPDIR"]);
        assert_eq!((home, mode.as_str(), language.as_str()), (folder, "700", "C.UTF-8"));
        assert!(home.starts_with("/tmp/muster-step-"), "{home}");
        assert!(!Path::new(home).exists(), "{home}");
    }
}

#[test]
fn the_text_that_runs_can_be_changed_by_nobody() {
    let text = r#"if echo 'echo changed' >> "$0" 2>/dev/null || truncate -s 0 "$0" 2>/dev/null; then exit 1; fi
                  printf '{"said":"%s"}\n' "$0""#;

    let said = said(action(text));

    assert!(said[0].starts_with("/proc/self/fd/"), "{said:?}");
}

#[test]
fn a_resource_runs_only_as_it_was_signed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("resource");
    let text = "printf '{\"said\":\"resource\"}\\n'";
    std::fs::write(&path, text).unwrap();
    let root = *blake3(text).as_bytes();
    let content = Content { path: path.clone(), size: text.len() as u64, root };
    let script = || Script { text: ScriptText::Resource(content.clone()), ..script("") };

    assert_eq!(said(script()), ["resource"]);

    std::fs::write(&path, text.replace("resource", "replaced")).unwrap();
    assert!(problem(script()).contains("not the one that was signed"), "{}", problem(script()));
    std::fs::write(&path, format!("{text} ")).unwrap();
    assert!(problem(script()).contains("not the one that was signed"));
}

fn blake3(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

#[test]
fn a_question_changes_nothing_outside_its_folder() {
    let folder = TempDir::new().unwrap();
    let (old, canary) = (folder.path().join("old"), folder.path().join("canary"));
    std::fs::write(&old, "x").unwrap();
    let before = std::fs::metadata(&old).unwrap();
    for change in [
        "echo y > $1/canary",
        "echo y >> $1/old",
        "mkdir $1/canary",
        "rm -f $1/old",
        "mv $1/old $1/canary",
        "ln $1/old $1/canary",
        "ln $1/old ./old && echo y > ./old",
        "ln -s $1/old ./link && echo y > ./link",
        "mkfifo $1/canary",
        "chmod 777 $1/old",
        "chown 1:1 $1/old",
        "touch -d 2001-01-01 $1/old",
        "truncate -s 0 $1/old",
        "python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_TRUNC)' $1/old",
        "python3 -c 'import os, sys; os.open(sys.argv[1], 3 | os.O_TRUNC)' $1/old",
        "python3 -c 'import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())'",
        "python3 -c 'import fcntl, os; fcntl.fcntl(os.pipe()[0], 10, 9)'",
        "python3 -c 'import ctypes, sys\nc = ctypes.CDLL(None, use_errno=True)\nsys.exit(c.semctl(-1, 0, 0) == -1 and ctypes.get_errno() == 1)'",
        ": </dev/ptmx",
        "python3 -c 'import os, sys; os.setxattr(sys.argv[1], \"user.x\", b\"y\")' $1/old",
        "mknod ./null c 1 3",
        "mknod ./disk b 8 0",
        "mount -t tmpfs none .",
        "unshare -r true",
        "unshare -m true",
        "chroot / true",
        "python3 -c 'import socket; socket.socket()'",
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX)'",
        "python3 -c 'import socket; socket.socketpair()'",
        "kill -0 1",
        "kill -0 $PPID",
        "python3 -c 'import os; os.setuid(65534)'",
        "nice -n -5 sh -c 'test $(nice) = -5'",
        "prlimit --core=1 --pid $PPID",
        "echo 1 > /proc/$PPID/oom_score_adj",
    ] {
        let given = Given::Value(folder.path().display().to_string().as_str().into());
        let text = format!("({change}) >out 2>err && exit 9; printf '{{\"said\":\"refused\"}}\\n'");
        let outcome = run(Script { arguments: vec![given], ..script(&text) });
        if is_refused_without_landlock(&outcome) {
            return;
        }

        assert_eq!(outcome.map(|answer| answer.rows), Ok(vec![vec!["refused".into()]]), "{change}");
        assert!(!canary.exists(), "{change}");
        assert_eq!(std::fs::read(&old).unwrap(), b"x", "{change}");
        let after = std::fs::metadata(&old).unwrap();
        assert_eq!(
            (after.modified().unwrap(), after.permissions()),
            (before.modified().unwrap(), before.permissions())
        );
    }
}

#[test]
fn a_question_reads_what_sql_may_and_runs_programs() {
    let text = r#"test "$(head -c 5 /etc/passwd)" = root: || exit 1
                  echo b > b; echo a >> b; mv b c; sort c > d; rm c; ln -s d e; cp e f
                  sleep 60 & kill $! || exit 2
                  timeout 5 cat f | tr '\n' ' ' > g
                  python3 -c 'import json; print(json.dumps({"said": open("g").read()}))'"#;

    assert_eq!(said(script(text)), ["a b "]);
}

#[test]
fn a_question_reads_nothing_of_what_the_client_keeps_wherever_that_is() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("data")).unwrap();
    std::os::unix::fs::symlink(path("data"), path("link")).unwrap();
    for name in ["other", "tls.key", "data/secret", "data/resource"] {
        std::fs::write(path(name), "x").unwrap();
    }
    let text = r#"for open in other data/resource; do cat "$1/$open" >/dev/null || exit 1; done
                  for kept in data/secret link/secret tls.key; do if cat "$1/$kept" >/dev/null 2>&1; then exit 2; fi; done
                  printf '{"said":"closed"}\n'"#;
    let helper = HelperCommand { closed: vec![path("link"), path("tls.key"), path("none")], ..helper() };
    let given = Given::Value(folder.path().display().to_string().as_str().into());
    let script = Script { arguments: vec![given], readable: vec![path("data/resource")], ..script(text) };

    let outcome = run_by(&helper, script);

    if !is_refused_without_landlock(&outcome) {
        assert_eq!(outcome.map(|answer| answer.rows), Ok(vec![vec!["closed".into()]]));
    }
}

#[test]
fn an_action_has_the_clients_rights_and_gains_none() {
    let folder = TempDir::new().unwrap();
    let text = r#"echo y > "$1/new" && chmod 600 "$1/new" || exit 1
                  printf '{"said":"%s"}\n' "$(id -u)" "$(grep NoNewPrivs /proc/self/status | cut -f2)""#;
    let given = Given::Value(folder.path().display().to_string().as_str().into());

    let said = said(Script { arguments: vec![given], ..action(text) });

    assert_eq!(said, [nix::unistd::geteuid().to_string(), "1".to_owned()]);
    assert_eq!(std::fs::read(folder.path().join("new")).unwrap(), b"y\n");
}

#[test]
fn nothing_that_a_script_left_behind_outlives_it() {
    let sleep = "98.1234001";
    let daemons = format!(
        r#"setsid sh -c 'sleep {sleep} & (setsid sleep {sleep} &) ; exec sleep {sleep}' >/dev/null 2>&1 &
           (sleep {sleep} &)
           python3 -c 'import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "{sleep}"])' &
           while [ "$(pgrep -fxc 'sleep {sleep}')" -lt 5 ]; do sleep 0.01; done
           printf '{{"said":"done"}}\n'"#
    );
    for script in [script(&daemons), action(&daemons)] {
        let begun = Instant::now();

        assert_eq!(said(script), ["done"]);

        assert_eq!(processes(sleep), Vec::<String>::new());
        assert!(begun.elapsed() < Duration::from_secs(20), "its daemons were waited for");
    }
}

#[test]
fn a_script_that_ignores_signals_ends_with_its_time_and_all_of_it() {
    let sleep = "98.1234002";
    let text = format!("trap '' TERM INT HUP; (setsid sleep {sleep} &); while :; do sleep {sleep}; done");
    for script in [script(&text), action(&text)] {
        let begun = Instant::now();

        let outcome = run(within(Duration::from_secs(1), script)).unwrap_err();

        assert!(matches!(outcome, QueryError::Deadline { .. }), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(processes(sleep), Vec::<String>::new());
    }
}

#[test]
fn a_script_whose_time_is_over_before_it_begins_is_late_and_no_fault_of_the_helper() {
    for micros in [0, 1, 100, 1_000, 2_000] {
        let run_time = Duration::from_micros(micros);

        let outcome = run(within(run_time, script("sleep 1")));

        assert_eq!(outcome, Err(QueryError::Deadline { run_time }));
    }
}

#[test]
fn a_flood_of_processes_ends_with_its_time() {
    // Twice as many with each step, up to 4,095: still forking when its time is over, and no danger to the machine where no control group
    // bounds it.
    let text = "f() { [ $1 -gt 0 ] && { f $(($1 - 1)) & f $(($1 - 1)) & }; sleep 98.1234003; }; f 11";

    let outcome = run(within(Duration::from_millis(300), script(text)));

    assert!(outcome.is_err(), "{outcome:?}");
    gone("98.1234003");
}

#[test]
fn a_script_whose_future_is_dropped_is_ended_with_all_of_it() {
    let sleep = "98.1234004";
    let text = format!("(setsid sleep {sleep} &) ; sleep {sleep}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let helper = helper();
    runtime.block_on(async {
        let script = run_script(&helper, action(&text));
        let waited = async {
            while processes(sleep).len() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = script => panic!("{ended:?}"),
            () = waited => {}
        }
    });

    gone(sleep);
}

#[test]
fn a_client_that_is_killed_leaves_nothing_of_its_scripts() {
    let sleep = "98.1234005";
    let program = std::env::current_exe().unwrap();
    let mut client = std::process::Command::new(program)
        .args(["--exact", "scripts::is_run_by_another_test", "--nocapture"])
        .env("MUSTER_TEST_SCRIPT", format!("(setsid sleep {sleep} &) ; sleep {sleep}"))
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while processes(&format!("sleep {sleep}")).len() < 2 {
        assert!(Instant::now() < until, "it did not start: {:?}", processes(sleep));
        std::thread::sleep(Duration::from_millis(10));
    }

    client.kill().unwrap();
    client.wait().unwrap();

    gone(sleep);
}

/// The process that [`a_client_that_is_killed_leaves_nothing_of_its_scripts`] kills; without it, nothing.
#[test]
fn is_run_by_another_test() {
    if let Ok(text) = std::env::var("MUSTER_TEST_SCRIPT") {
        run(within(Duration::from_secs(60), action(&text))).unwrap();
    }
}

#[test]
fn endless_output_of_a_question_is_cut_as_a_querys_is() {
    let begun = Instant::now();

    let many = run(script("while :; do printf '{\"said\":\"x\"}\\n'; done")).unwrap();
    let large = run(script(r#"yes '{"said":"0123456789012345678901234567890123456789"}'"#)).unwrap();

    assert!(many.truncated && large.truncated);
    assert_eq!((many.rows.len(), large.rows.len()), (100, 100));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn an_action_comes_to_its_end_whatever_it_writes() {
    let folder = TempDir::new().unwrap();
    let given = || vec![Given::Value(folder.path().display().to_string().as_str().into())];
    let text = r#"head -c 20000000 /dev/zero | tr '\0' x | fold -w 50 | sed 's/.*/{"said":"&"}/'; echo y > "$1/end""#;

    let answer = run(Script { arguments: given(), ..action(text) }).unwrap();

    assert!(answer.truncated);
    assert_eq!(answer.rows.len(), 100);
    assert!(folder.path().join("end").exists());

    let text = r#"echo no; echo y > "$1/wrong"; sleep 0.2; echo y > "$1/right""#;
    let problem = problem(Script { arguments: given(), ..action(text) });
    assert!(problem.starts_with("line 1 of its output: no: expected"), "{problem}");
    assert!(folder.path().join("right").exists(), "it was ended in its middle");
}

#[test]
fn one_endless_line_is_no_row() {
    let problem = problem(script("head -c 10000000000 /dev/zero"));

    assert!(problem.contains("line 1 of its output is longer than 4194304 bytes"), "{problem}");
}

#[test]
fn garbage_is_told_with_its_line_and_what_was_wanted() {
    let wrong = problem(script("printf '{\"said\":\"a\"}\\n{\"said\":1}\\n'"));
    let bytes = problem(script("head -c 100 /dev/urandom; echo; sleep 60"));
    let terminal = problem(script(r"printf '\033[2J\033]0;owned\007'"));

    assert_eq!(wrong, "line 2 of its output: `said` is 1; wanted a text");
    assert!(bytes.starts_with("line 1 of its output: "), "{bytes}");
    assert!(terminal.contains("wanted a JSON object with the keys said"), "{terminal}");
    assert!(!terminal.contains('\u{1b}'), "{terminal}");
}

#[test]
fn an_end_that_is_none_is_told_with_the_last_words() {
    let three = problem(script("printf '{\"said\":\"a\"}\\n'; echo 'why \\033[1m it' >&2; exit 3"));
    let killed = problem(script("kill -9 $$"));
    let long = problem(script("yes long | head -c 1000000 >&2; echo last >&2; exit 1"));
    let none = problem(Script { interpreter: "/nonexistent/sh".into(), ..script("exit 0") });

    assert_eq!(three, "the script ended with exit code 3; the end of its standard error: why \\u{1b}[1m it");
    assert_eq!(killed, "the script was ended by SIGKILL, and wrote nothing on standard error");
    assert!(long.ends_with("last") && long.len() < 700, "{long}");
    assert!(none.contains("cannot start the interpreter /nonexistent/sh: No such file"), "{none}");
}

#[test]
fn a_signal_of_real_time_ends_what_it_is_sent_to_and_is_told_by_its_number() {
    // The orphan is the watcher's child by then.
    let orphan = r#"(sh -c 'echo $$ > orphan; while :; do sleep 0.01; done' &) ; while ! test -s orphan; do sleep 0.01; done
                    kill -40 "$(cat orphan)"; while kill -0 "$(cat orphan)" 2>/dev/null; do sleep 0.01; done
                    sleep 0.3; printf '{"said":"went on"}\n'"#;

    let said = said(action(orphan));
    let own = problem(action("kill -40 $$"));

    assert_eq!(said, ["went on"]);
    assert_eq!(own, "the script was ended by signal 40, and wrote nothing on standard error");
}

#[test]
fn what_no_column_is_declared_for_is_dropped_and_the_end_counts() {
    let free = |text: &str| Script { columns: None, ..script(text) };

    assert_eq!(run(free("echo anything")).unwrap().rows, Vec::<Vec<SqlValue>>::new());
    assert!(problem(free("echo anything; exit 1")).contains("exit code 1"));
}

#[test]
fn a_script_that_reads_nothing_is_given_much() {
    let much = Given::Value("x".repeat(200_000).as_str().into());

    let said = said(Script {
        parameters: vec![("much".to_owned(), much)],
        ..script("printf '{\"said\":\"a\"}\\n'")
    });

    assert_eq!(said, ["a"]);
}

#[test]
fn hostile_strings_are_words_and_json_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let strings = strings(&folder.path().join("canary"));
    // The schema refuses NUL, and twice as many as fit once are too many.
    let is_fit = |string: &&String| !string.contains('\0') && string.len() < 10_000;
    let strings: Vec<&String> = strings.iter().filter(is_fit).collect();
    assert!(strings.len() >= 490, "{} strings", strings.len());
    let text = r#"import json, os, sys
given = list(json.load(sys.stdin).values())
words = [os.fsencode(word).decode() for word in sys.argv[1:]]
for word, value in zip(words, given, strict=True):
    print(json.dumps({"said": word if word == value else None}))"#;
    for some in strings.chunks(50) {
        let given = || some.iter().map(|string| Given::Value(string.as_str().into()));
        let said = said(Script {
            interpreter: "/usr/bin/python3".into(),
            arguments: given().collect(),
            parameters: given().enumerate().map(|(number, given)| (format!("p{number:03}"), given)).collect(),
            limits: QueryLimits { run_time: Duration::from_secs(30), rows: 100, bytes: 10_000_000 },
            ..action(text)
        });
        assert!(said.iter().eq(some.iter().copied()), "{said:?}");
    }
    for (name, some) in
        ["sh", "bash"].into_iter().flat_map(|name| strings.chunks(100).map(move |some| (name, some)))
    {
        let text = "for word; do : $word; [ \"$word\" = x ]; done; printf '{\"said\":\"%d\"}\\n' $#";
        let given = some.iter().map(|string| Given::Value(string.as_str().into()));
        let interpreter = format!("/bin/{name}").into();
        let said = said(Script { interpreter, arguments: given.collect(), ..action(text) });
        assert_eq!(said, [some.len().to_string()]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a canary");
    assert_eq!(processes(CANARY_SLEEP), Vec::<String>::new());
}

#[test]
fn a_strict_script_is_nobody_with_every_layer_or_nothing() {
    let folder = TempDir::new().unwrap();
    let readable = folder.path().join("resource");
    std::fs::write(&readable, "resource").unwrap();
    let text = r#"cat "$1" > copy && cat /etc/passwd >/dev/null || exit 1
                  if ls /root /tmp/muster-test-* "$2" 2>/dev/null; then exit 2; fi
                  if echo x > "$1" 2>/dev/null; then exit 3; fi
                  printf '{"said":"%s"}\n' "$(id -u)" "$(cat copy)""#;
    let path = |path: &Path| Given::Value(path.display().to_string().as_str().into());
    for reach in [Reach::Reads, Reach::Changes] {
        let strict = Script {
            sandbox: SandboxProfile::Strict,
            reach,
            readable: vec![readable.clone()],
            arguments: vec![path(Path::new("/proc/self/cmdline")), path(&readable)],
            ..script(text)
        };
        match run(strict) {
            Err(QueryError::Sandbox { missing }) => {
                let fix =
                    format!("{missing:?} are missing though the kernel has them; let the tests use them");
                lacks("sandbox", can_make_every_layer(), &fix);
            }
            answer => {
                let rows = answer.unwrap().rows;
                assert_eq!(rows[0], ["65534".into()]);
            }
        }
    }
}
