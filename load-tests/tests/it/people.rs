//! Mistakes of people: each has one clear error that names the fix, and the right exit code.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use muster_load_tests::dev_fleet::DevFleet;

use crate::support::{Place, binary, folder, run, sign_definition, with};

#[test]
fn mistakes_of_operators_have_clear_errors_and_exit_codes() {
    let mut fleet = DevFleet::start(1).unwrap();

    an_unknown_column_or_table_names_the_nearest(&fleet);
    a_broken_audience_is_pointed_into(&fleet);
    an_unlicensed_prefix_is_denied(&fleet);
    a_tampered_or_foreign_definition_is_not_imported(&fleet);
    what_is_not_there_is_named(&fleet);
    a_second_fleet_in_the_folder_is_refused(&fleet);
    let before = with(fleet.muster(), ["instruction", "list", "-o", "json"]).with_code(0).json();
    assert_eq!(before, serde_json::json!([]), "none of the mistakes was sent");

    fleet.stop().unwrap();
    let refused = |words: &[&str]| with(fleet.muster(), words).with_code(5).naming(&["localhost:"]);
    refused(&["ask", "SELECT name FROM os"]).naming(&["refused", "try:"]);
    refused(&["resource", "list"]);
    let doctor = with(fleet.muster(), ["doctor"]).with_code(5);
    assert!(doctor.out.contains("start it"), "{}", doctor.out);
}

#[test]
fn a_home_without_a_context_says_how_to_get_one() {
    let home = folder();
    for words in
        [&["ask", "SELECT name FROM os"][..], &["client", "list"], &["resource", "list"], &["export"]]
    {
        let mut command = binary("muster");
        command.arg("--home").arg(home.path());
        with(command, words).with_code(2).naming(&["context", "muster dev", "muster ctx add"]);
    }
    let mut command = binary("muster");
    command.arg("--home").arg(home.path());
    with(command, ["--context", "nowhere", "client", "list"]).with_code(2).naming(&["nowhere"]);
}

#[test]
fn a_busy_port_names_the_port_and_the_key() {
    let place = Place::with_pki(&[]);
    let ports = place.ports;
    place.switch_config("");
    place.background_config();
    let refuses = |program: &str, name: &str, port: u16, key: &str| {
        let busy = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut service = place.start(program, name);
        let code = service.ends();
        drop(busy);
        let log = service.log();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(code, Some(69), "{log}");
        assert!(
            last.contains(&format!("port {port} is in use")) && last.contains(&format!("change `{key}`")),
            "{log}"
        );
    };

    refuses("muster-switch", "switch", ports.sessions, "listen");
    refuses("muster-switch", "switch", ports.operator, "operator_listen");
    refuses("muster-switch", "switch", ports.admin, "admin_listen");
    refuses("muster-background-channel", "background", ports.background, "listen");
    refuses("muster-background-channel", "background", ports.background_admin, "admin_listen");

    place.start_switch().stop();
}

#[test]
fn every_subcommand_has_help_and_the_main_ones_have_examples() {
    let mut seen = 0;
    help(&mut Vec::new(), &mut seen);
    assert!(seen > 30, "only {seen} subcommands found");
    for words in [&["ask"][..], &["run"], &["dev"], &["pki", "issue"], &["pki", "check"]] {
        let said = run(binary("muster").args(words).arg("--help")).with_code(0);
        assert!(said.out.contains("Example"), "muster {words:?} --help has no example:\n{}", said.out);
    }
    for program in
        ["muster-switch", "muster-background-channel", "muster-client", "muster-sign", "muster-load"]
    {
        run(binary(program).arg("--help")).with_code(0);
        run(binary(program).arg("--no-such-flag")).with_code(2);
        let version = run(binary(program).arg("--version")).with_code(0);
        assert!(version.out.contains(env!("CARGO_PKG_VERSION")), "{}", version.out);
    }
    run(&mut binary("muster")).with_code(2);
    run(binary("muster").arg("instructions")).with_code(2).naming(&["similar", "instruction"]);
}

/// Asks for the help of a command and of all below it.
fn help(words: &mut Vec<String>, seen: &mut usize) {
    let said = run(binary("muster").args(&*words).arg("--help")).with_code(0);
    *seen += 1;
    let listed = said.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| line.starts_with(' ')).filter(|line| !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        words.push(name.to_owned());
        help(words, seen);
        words.pop();
    }
}

fn an_unknown_column_or_table_names_the_nearest(fleet: &DevFleet) {
    let ask = |sql: &str| with(fleet.muster(), ["ask", sql]).with_code(2);
    ask("SELECT nam, version FROM os").naming(&["nam", "`name`"]);
    ask("SELECT name FROM proceses").naming(&["proceses", "processes"]);
    ask("SELECT name FROM").naming(&["incomplete"]);
    ask("SELEC name FROM os").naming(&["syntax"]);
    ask("DELETE FROM os").naming(&["try:"]);
    ask("SELECT 1; SELECT 2").naming(&["try:"]);
    ask("SELECT path FROM files").naming(&["path = "]);
    ask("").naming(&["try:"]);
}

fn a_broken_audience_is_pointed_into(fleet: &DevFleet) {
    let ask = |on: &str| with(fleet.muster(), ["ask", "SELECT name FROM os", "--on", on]).with_code(2);
    let pointed = ask("os == \"linux\" && cpus >== 4");
    assert!(
        pointed.err.contains("os == \"linux\" && cpus >== 4"),
        "the expression is shown: {}",
        pointed.err
    );
    let mark = |text: &str| ["^", "─", "╰", "▲", "┬"].iter().any(|mark| text.contains(mark));
    assert!(mark(&pointed.err), "nothing points into it: {}", pointed.err);
    ask("osx == \"linux\"").naming(&["osx", "`os`"]);
    ask("os = \"linux\"").naming(&["=="]);
    ask("os == \"linux").naming(&["\""]);
    with(fleet.muster(), ["client", "list", "--on", "os ="]).with_code(2);
}

fn an_unlicensed_prefix_is_denied(fleet: &DevFleet) {
    let signed = sign(fleet, "Other-Os-Name", &fleet.ready.home);
    run(fleet.muster().args(["definition", "import"]).arg(&signed)).with_code(0);

    let denied = with(fleet.muster(), ["run", "Other-Os-Name"]).with_code(4);

    denied.naming(&["Other", "licence"]);
    let listed = with(fleet.muster(), ["definition", "list", "-o", "json"]).with_code(0).json();
    let other = listed.as_array().unwrap().iter().find(|one| one["name"] == "Other-Os-Name").unwrap();
    assert_eq!(other["licensed"], false);
}

fn a_tampered_or_foreign_definition_is_not_imported(fleet: &DevFleet) {
    let signed = sign(fleet, "Acme-Os-Name", &fleet.ready.home);
    let good = std::fs::read(&signed).unwrap();
    let place = good.windows(7).position(|window| window == b"FROM os").expect("the text is in the envelope");
    let mut tampered = good.clone();
    tampered[place + 5] = b'x';
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    // What is no signed document is refused, and what does not verify is denied.
    for (name, bytes, code) in [
        ("tampered", tampered, 4),
        ("cut", cut, 4),
        ("empty", Vec::new(), 1),
        ("text", b"name = 1".to_vec(), 1),
    ] {
        let file = fleet.folder().join(format!("{name}.cms"));
        std::fs::write(&file, bytes).unwrap();
        let said = run(fleet.muster().args(["definition", "import"]).arg(&file));
        let said = said.with_code(code).naming(&[name]);
        run(fleet.muster().args(["licence", "import"]).arg(&file)).with_code(code).naming(&[name]);
        run(fleet.muster().args(["policy", "import"]).arg(&file)).with_code(code).naming(&[name]);
        assert!(said.err.lines().count() <= 4, "one clear error: {}", said.err);
    }
    let tampered = fleet.folder().join("tampered.cms");
    run(fleet.muster().args(["definition", "import"]).arg(&tampered)).with_code(4).naming(&["signature"]);
    let mut verify = binary("muster-sign");
    verify.args(["definition", "verify"]).arg(&tampered).arg("--home").arg(&fleet.ready.home);
    run(&mut verify).with_code(1);

    let stranger = Place::empty();
    stranger.muster(["pki", "init"]).with_code(0);
    let foreign = sign(fleet, "Acme-Os-Foreign", &stranger.home());
    run(fleet.muster().args(["definition", "import"]).arg(&foreign))
        .with_code(4)
        .naming(&["Acme-Os-Foreign.cms", "root"]);
    let absent = fleet.folder().join("absent.cms");
    run(fleet.muster().args(["definition", "import"]).arg(&absent)).with_code(2).naming(&["absent.cms"]);
    let listed = with(fleet.muster(), ["definition", "list", "-o", "csv"]).with_code(0);
    assert!(!listed.out.contains("Acme-Os"), "{}", listed.out);
}

fn what_is_not_there_is_named(fleet: &DevFleet) {
    with(fleet.muster(), ["run", "Muster-Os-Versoin"]).with_code(2).naming(&["Muster-Os-Versoin"]);
    with(fleet.muster(), ["instruction", "show", "0197a6c8-0000-7000-8000-000000000000"])
        .with_code(2)
        .naming(&["0197a6c8-0000-7000-8000-000000000000"]);
    with(fleet.muster(), ["instruction", "show", "nonsense"]).with_code(2).naming(&["nonsense"]);
    with(fleet.muster(), ["definition", "show", "Muster-No-Such"]).with_code(2).naming(&["Muster-No-Such"]);
    with(fleet.muster(), ["resource", "put", "/no/such/file"]).with_code(2).naming(&["/no/such/file"]);
    with(fleet.muster(), ["run", "Muster-Package-Version"]).with_code(2).naming(&["name"]);
    with(fleet.muster(), ["ask", "SELECT 1 AS one", "--wait", "soon"]).with_code(2).naming(&["--wait"]);
}

fn a_second_fleet_in_the_folder_is_refused(fleet: &DevFleet) {
    let mut second = binary("muster");
    second
        .args(["dev", "--clients", "0", "--ports", "auto", "--dir"])
        .arg(fleet.folder())
        .env_remove("MUSTER_HOME");
    run(&mut second).with_code(2).naming(&["another", "--dir"]);
}

/// Signs a small definition of this name with the publisher's key of a home.
fn sign(fleet: &DevFleet, name: &str, home: &Path) -> PathBuf {
    let text = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Which system is it?\"\n\
         [[step]]\nquery = \"SELECT name FROM os\"\n[[result]]\nname = \"name\"\ntype = \"text\"\nmax_length = 64\n"
    );
    sign_definition(fleet.folder(), name, &text, home)
}
