//! Packs (G9): built by `muster-sign pack build`, imported whole or not at all, with the resources before the definitions.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use muster_signing::pack::{Digests, END, header};
use serde_json::{Value, json};

use crate::support::{Place, Said, Service, binary, rows, run, sign_definition, with};

const DEVICE: &str = "web1.example.org";

/// The names in `definition list`, and in `resource list`.
#[track_caller]
pub(crate) fn held(place: &Place) -> (Vec<String>, Vec<String>) {
    let names = |noun: &str| -> Vec<String> {
        let listed = place.muster([noun, "list", "-o", "json"]).with_code(0).json();
        let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(name).collect()
    };
    (names("definition"), names("resource"))
}

pub(crate) fn none() -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

/// A place whose Switch and Background Channel are to be started.
pub(crate) fn place() -> Place {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.add_context();
    place
}

fn marker() -> Vec<u8> {
    (0..70_000_u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

/// A pack of three definitions, of which two need a resource each and one has a prefix that no licence names.
#[track_caller]
pub(crate) fn build(place: &Place) -> PathBuf {
    let folder = place.path("packed");
    std::fs::create_dir_all(&folder).unwrap();
    let files = [("marker", "marker.bin", marker()), ("words", "words.txt", b"one\ntwo\n".to_vec())];
    let mut needed = Vec::new();
    for (name, file, bytes) in &files {
        std::fs::write(folder.join(file), bytes).unwrap();
        let Digests { size, root, .. } = Digests::of(bytes);
        needed.push(format!("[[resource]]\nname = \"{name}\"\nsize = {size}\nroot = \"{root}\"\n"));
    }
    let query = |name: &str| format!("SELECT size FROM files WHERE path = :resource_{name}");
    for (name, resource, query) in [
        ("Acme-Pack-Marker", needed[0].as_str(), query("marker")),
        ("Acme-Pack-Words", needed[1].as_str(), query("words")),
        ("Other-Pack-Plain", "", "SELECT 1 AS size".to_owned()),
    ] {
        let text = format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"How large is it?\"\n\n{resource}\n\
             [[step]]\nquery = \"{query}\"\n\n[[result]]\nname = \"size\"\ntype = \"integer\"\n"
        );
        let signed = sign_definition(&place.path(""), name, &text, &place.home());
        std::fs::rename(&signed, folder.join(signed.file_name().unwrap())).unwrap();
    }
    let pack = place.path("basics.pack");
    let mut build = binary("muster-sign");
    build.args(["pack", "build"]).arg(&folder).args(["--name", "Acme-Test-Pack", "--version", "1.0.0"]);
    build.args(["--says", "Tests.", "--key"]).arg(place.home().join("publisher/key.pem"));
    build.arg("--cert").arg(place.home().join("publisher/cert.pem")).arg("--out").arg(&pack);
    run(&mut build).with_code(0);
    pack
}

fn import(place: &Place, more: &[&str]) -> Said {
    let mut command = place.command();
    command.args(["pack", "import"]).arg(place.path("basics.pack"));
    with(command, more)
}

/// The state of each member, by its name.
pub(crate) fn states(said: &Said) -> Value {
    let rows = said.json();
    let state = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["state"].clone());
    Value::Object(rows.as_array().unwrap().iter().map(state).collect())
}

#[test]
fn a_pack_is_imported_once_its_resources_are_there_and_what_it_brings_runs() {
    let place = place();
    build(&place);
    import(&place, &[]).with_code(5).naming(&["nothing of the pack is imported"]);
    let switch = place.start_switch();
    place.import_licence();

    // Without the Background Channel the Switch is not asked at all.
    import(&place, &[]).with_code(5).naming(&["resource marker.bin", "nothing of the pack is imported"]);
    let background = place.start_background();
    assert_eq!(held(&place), none());
    let first = import(&place, &["-o", "json"]).with_code(0);
    let again = import(&place, &["-o", "json"]).with_code(0);
    let shown = import(&place, &[]).with_code(0);

    let all = |of_definitions: &str, of_resources: &str| {
        json!({
            "Acme-Pack-Marker": of_definitions, "Acme-Pack-Words": of_definitions, "Other-Pack-Plain": of_definitions,
            "marker.bin": of_resources, "words.txt": of_resources,
        })
    };
    assert_eq!(states(&first), all("imported", "stored"));
    assert_eq!(states(&again), all("already there", "already there"));
    let first =
        first.naming(&["3 definitions imported, 0 there already; 2 resources stored, 0 there already"]);
    again.naming(&["0 definitions imported, 3 there already; 0 resources stored, 2 there already"]);
    let licensed = |said: &Said| -> Vec<Value> {
        said.json().as_array().unwrap().iter().map(|row| row["licensed"].clone()).collect()
    };
    assert_eq!(licensed(&first), [json!(true), json!(true), json!(false), json!(null), json!(null)]);
    first.naming(&[
        "1 of 3 definitions are unlicensed",
        "Other-Pack-Plain 1.0.0: ",
        "try: muster licence import",
    ]);
    assert!(shown.lines()[0].starts_with("KIND"), "{}", shown.out);
    assert_eq!(shown.lines().len(), 6, "{}", shown.out);
    let definitions = ["Acme-Pack-Marker", "Acme-Pack-Words", "Other-Pack-Plain"].map(str::to_owned).to_vec();
    let resources = ["marker.bin", "words.txt"].map(str::to_owned).to_vec();
    assert_eq!(held(&place), (definitions, resources));

    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    for (name, size) in [("Acme-Pack-Marker", 70_000), ("Acme-Pack-Words", 8)] {
        let ran = place.muster(["run", name, "--wait", "30s", "-o", "json"]).with_code(0).json();
        assert_eq!(rows(&ran)[0]["size"], json!(size), "{}", client.log());
    }
    place.muster(["run", "Other-Pack-Plain", "--wait", "1s"]).with_code(4);
    [client, background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn a_changed_byte_anywhere_in_a_pack_is_refused_and_nothing_of_it_is_there() {
    let place = place();
    let (switch, background) = (place.start_switch(), place.start_background());
    place.import_licence();
    let pack = build(&place);
    let good = std::fs::read(&pack).unwrap();
    let resource = good.windows(16).position(|bytes| bytes == &marker()[..16]).unwrap();
    let words = good.windows(8).position(|bytes| bytes == b"one\ntwo\n").unwrap();
    // The index has the path, too, and comes first.
    let path = "definitions/Other-Pack-Plain-1.0.0.cms";
    let path = good.windows(path.len()).rposition(|bytes| bytes == path.as_bytes()).unwrap();
    let blocks = header("x", 0).len();
    for (what, at, code) in [
        ("the header of the index", 1, 1),
        ("the index", blocks + 400, 4),
        ("the path of a definition", path + 15, 1),
        ("a definition", path + blocks + 300, 1),
        ("the path of a resource", resource - blocks + 12, 1),
        ("the first byte of a resource", resource, 1),
        ("the last byte of a resource", resource + 69_999, 1),
        ("the padding of a resource", words + 8, 1),
        ("the end", good.len() - END.len(), 1),
        ("the last byte", good.len() - 1, 1),
    ] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        std::fs::write(&pack, changed).unwrap();

        let said = import(&place, &[]);

        assert_eq!(said.code, code, "{what}: {said:?}");
        assert_eq!((said.out.as_str(), said.err.starts_with("error: ")), ("", true), "{what}: {said:?}");
        assert_eq!(held(&place), none(), "{what}");
    }
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        ("all but a byte", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
    ] {
        std::fs::write(&pack, bytes).unwrap();
        import(&place, &[]).with_code(1);
        assert_eq!(held(&place), none(), "{what}");
    }
    place.muster(["pack", "import", "/no/such.pack"]).with_code(2).naming(&["/no/such.pack"]);
    place.muster(["pack", "import", "/dev/null"]).with_code(2).naming(&["not a regular file"]);
    std::fs::write(&pack, good).unwrap();
    import(&place, &[]).with_code(0);
    assert_eq!(held(&place).0.len(), 3);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn a_pack_of_somebody_who_is_not_believed_is_denied() {
    let place = place();
    let (switch, background) = (place.start_switch(), place.start_background());
    let other = Place::with_pki(&[]);
    std::fs::rename(build(&other), place.path("basics.pack")).unwrap();

    import(&place, &[]).with_code(4).naming(&["the pack's index", "trust/authors.pem"]);
    // Nor does the Switch take the word of a machine that believes them; its own trust is in the first home.
    let home = place.path("believing");
    let copied = Command::new("cp").arg("-r").args([&place.home(), &home]).status().unwrap();
    assert!(copied.success(), "{copied}");
    std::fs::copy(other.home().join("trust/authors.pem"), home.join("trust/authors.pem")).unwrap();
    let mut import = binary("muster");
    import.env("MUSTER_HOME", home).args(["pack", "import"]).arg(place.path("basics.pack"));
    run(&mut import).with_code(4).naming(&["the pack's index", "nothing of the pack is imported"]);

    assert_eq!(held(&place).0, [""; 0]);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn an_import_that_was_cut_off_goes_on_where_it_was() {
    let place = place();
    let (switch, background) = (place.start_switch(), place.start_background());
    build(&place);
    // Each resource has one connection, over which it is asked for and put.
    let way = CutOff::after(1, place.ports.background);

    import(&place, &["--background-channel", &way.url]).with_code(5).naming(&["resource words.txt"]);
    let (definitions, resources) = held(&place);
    let whole = import(&place, &["-o", "json"]).with_code(0);

    assert_eq!((definitions, resources), (Vec::new(), vec!["marker.bin".to_owned()]));
    let states = states(&whole);
    assert_eq!(states["marker.bin"], "already there");
    assert_eq!((&states["words.txt"], &states["Acme-Pack-Words"]), (&json!("stored"), &json!("imported")));
    // No licence is there at all.
    whole.naming(&["3 of 3 definitions are unlicensed", "there is no licence"]);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn definitions_that_are_imported_before_one_that_is_refused_are_shown_and_the_exit_code_is_3() {
    let place = place();
    let switch = place.start_switch();
    place.import_licence();
    build(&place);
    let file = |name: &str| place.path("packed").join(name).display().to_string();
    let (good, other) = (file("Acme-Pack-Marker.cms"), file("Other-Pack-Plain.cms"));
    let mut changed = std::fs::read(&good).unwrap();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(file("changed.cms"), changed).unwrap();
    let refused = file("changed.cms");

    let some = place.muster(["definition", "import", &other, &refused, &good, "-o", "json"]).with_code(3);
    let shown = some.json();
    let some = some.naming(&[
        "changed.cms",
        "1 of 3 definitions are imported",
        "Other-Pack-Plain: imported, but unlicensed",
    ]);
    let nothing = place.muster(["definition", "import", &refused, &good]);
    let listed = held_definitions(&place);

    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["name"]), (1, &json!("Other-Pack-Plain")));
    let (note, error) = (some.err.find("unlicensed").unwrap(), some.err.find("error: ").unwrap());
    assert!(note < error, "the error comes last: {}", some.err);
    assert!([1, 2, 4].contains(&nothing.code) && nothing.out.is_empty(), "{nothing:?}");
    assert_eq!(listed, ["Other-Pack-Plain"]);
    place.muster(["definition", "import", &other, &good]).with_code(0);
    assert_eq!(held_definitions(&place), ["Acme-Pack-Marker", "Other-Pack-Plain"]);
    switch.stop();
}

fn held_definitions(place: &Place) -> Vec<String> {
    let listed = place.muster(["definition", "list", "-o", "json"]).with_code(0).json();
    let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(name).collect()
}

/// A way to a port that lets so many connections through, and drops all later ones.
struct CutOff {
    url: String,
}

impl CutOff {
    fn after(connections: usize, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}/Background/v1", listener.local_addr().unwrap().port());
        // It waits for connections as long as the test's process lives.
        std::thread::spawn(move || {
            for (number, near) in listener.incoming().flatten().enumerate() {
                if number < connections {
                    join(&near, &TcpStream::connect(("127.0.0.1", port)).unwrap());
                }
            }
        });
        Self { url }
    }
}

/// Carries bytes both ways until both ends have no more.
fn join(near: &TcpStream, far: &TcpStream) {
    let carry = |mut from: &TcpStream, mut to: &TcpStream| {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| carry(near, far));
        carry(far, near);
    });
}
