//! Exchanges (G9): a list that `muster-sign exchange build` wrote, on a web server of TLS, honest or not.

mod web_server;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::web_server::{Answer, Asked, WebServer};
use crate::packs::{build, held, none, place, states};
use crate::support::{Place, Said, Service, binary, run, wait_until, with};

const LIST: &str = "/muster/exchange.json";
const PACK: &str = "/muster/packs/basics.pack";
const NAME: &str = "Acme-Test-Pack";

/// A place with a pack, the list of it, and a server that gives both.
struct Exchange {
    place: Place,
    server: WebServer,
    pack: Vec<u8>,
    list: Value,
}

impl Exchange {
    fn start() -> Self {
        let place = place();
        let pack = std::fs::read(build(&place)).unwrap();
        std::fs::create_dir(place.path("tmp")).unwrap();
        let server = WebServer::start(&place);
        let list = list(&place, &place.home());
        let exchange = Self { place, server, pack, list };
        exchange.is_honest();
        exchange
    }

    fn is_honest(&self) {
        self.gives_list(&self.list);
        self.server.gives(PACK, Answer::File(self.pack.clone()));
    }

    fn gives_list(&self, list: &Value) {
        self.server.gives(LIST, Answer::File(list.to_string().into_bytes()));
    }

    /// The list, changed.
    fn list_with(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut list = self.list.clone();
        change(&mut list["packs"][0]);
        list
    }

    fn url(&self) -> String {
        self.server.url(LIST)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.place.command();
        command.env("TMPDIR", self.place.path("tmp")).args(words);
        command
    }

    /// Runs `muster pack …` with the roots of the place's servers.
    fn muster(&self, words: &[&str]) -> Said {
        let roots = self.place.home().join("trust/servers.pem");
        with(self.command(&["pack"]), words.iter().map(Path::new).chain([Path::new("--https-roots"), &roots]))
    }

    fn search(&self, more: &[&str]) -> Said {
        self.muster(&[&["search", &self.url()][..], more].concat())
    }

    fn import(&self, more: &[&str]) -> Said {
        self.muster(&[&["import", NAME, "--exchange", &self.url()][..], more].concat())
    }

    /// Has the server give this, of which nothing may be imported or left; an error says these words.
    #[track_caller]
    fn refuses(&self, path: &str, (what, answer): (&str, Answer), code: i32, words: &[&str]) {
        self.server.gives(path, answer);
        let said = self.import(&[]);

        assert_eq!((said.code, said.out.as_str()), (code, ""), "{what}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{what}: {said:?}");
        assert_eq!((held(&self.place), self.left()), (none(), 0), "{what}");
    }

    /// Files that a command left where it downloads to.
    fn left(&self) -> usize {
        std::fs::read_dir(self.place.path("tmp")).unwrap().count()
    }
}

/// The list of a place's pack, by the roots of a home.
fn list(place: &Place, home: &Path) -> Value {
    let mut list = binary("muster-sign");
    list.args(["exchange", "build"]).arg(place.path("basics.pack")).args(["--url-prefix", "packs/"]);
    list.arg("--home").arg(home).arg("--out").arg(place.path("exchange.json"));
    run(&mut list).with_code(0);
    serde_json::from_slice(&std::fs::read(place.path("exchange.json")).unwrap()).unwrap()
}

#[test]
fn a_pack_of_an_exchange_is_found_downloaded_and_imported_as_a_local_one_is() {
    let exchange = Exchange::start();
    let place = &exchange.place;
    let marks = |said: &Said| (said.json()[0]["imported"].clone(), said.json()[0]["licensed"].clone());

    // Without a Switch one can look.
    let without = exchange.search(&["-o", "json"]).with_code(0);
    assert_eq!(marks(&without), (Value::Null, Value::Null));
    without.naming(&[
        "whether they are imported and licensed is not known",
        "pack import Acme-Test-Pack --exchange",
    ]);
    exchange.import(&[]).with_code(5).naming(&["nothing of the pack is imported"]);
    let asked: Vec<String> = exchange.server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked, [LIST, LIST], "the pack is not downloaded in vain");
    let (switch, background) = (place.start_switch(), place.start_background());
    place.import_licence();

    let before = exchange.search(&["test", "HOW LARGE", "-o", "json"]).with_code(0);
    let shown = exchange.search(&[]).with_code(0);
    let other = exchange.search(&["certificates"]).with_code(0);
    let imported = exchange.import(&["-o", "json"]).with_code(0);
    let after = exchange.search(&["-o", "json"]).with_code(0);

    assert_eq!(marks(&before), (json!("no"), json!("partly")));
    assert_eq!(before.json()[0]["sha256"], exchange.list["packs"][0]["sha256"]);
    assert_eq!(before.json()[0]["definitions"][2]["licensed"], json!(false), "Other-Pack-Plain");
    assert!(shown.lines()[0].starts_with("NAME") && shown.out.contains("Tests."), "{}", shown.out);
    shown.naming(&["a pack is verified when it is imported"]);
    other.naming(&["none of the 1 packs has these words"]);
    let states = states(&imported);
    assert_eq!((&states["Acme-Pack-Marker"], &states["marker.bin"]), (&json!("imported"), &json!("stored")));
    imported.naming(&[
        "3 definitions imported, 0 there already; 2 resources stored",
        "1 of 3 definitions are unlicensed",
    ]);
    assert_eq!(marks(&after), (json!("yes"), json!("partly")));
    assert_eq!((held(place).0.len(), held(place).1.len(), exchange.left()), (3, 2, 0));
    let asked = exchange.server.asked();
    let of = |path: &str| Asked { path: path.to_owned(), shows_certificate: false };
    let wanted = [LIST, LIST, LIST, LIST, PACK, LIST].map(of);
    assert_eq!(asked, wanted, "no certificate of ours, and nothing else");

    let local = place.path("basics.pack").display().to_string();
    place.muster(["pack", "import", &local]).with_code(0).naming(&["3 there already", "2 there already"]);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn whatever_comes_in_the_place_of_a_pack_is_refused_and_nothing_of_it_is_imported_or_left() {
    let exchange = Exchange::start();
    let place = &exchange.place;
    let (switch, background) = (place.start_switch(), place.start_background());
    let elsewhere = WebServer::start(place);
    elsewhere.gives(PACK, Answer::File(exchange.pack.clone()));
    let (pack, half) = (exchange.pack.clone(), exchange.pack.len() / 2);
    let mut changed = pack.clone();
    changed[half] ^= 1;
    for (what, answer, code, words) in [
        ("half of it, cut off", Answer::CutOff(pack.clone(), half), 5, "nothing of the pack is kept"),
        ("half of it", Answer::Short(pack.clone(), half), 1, "ended after"),
        ("nothing", Answer::Short(pack.clone(), 0), 1, "ended after 0 bytes"),
        ("a byte more", Answer::Longer(pack, 1), 1, "the server would send"),
        ("without end", Answer::Endless, 1, "more than the"),
        ("other bytes", Answer::File(changed), 1, "the list says"),
        ("a redirect", Answer::Status(302, elsewhere.url(PACK)), 1, "redirects are not followed"),
        ("not there", Answer::Status(404, String::new()), 1, "status 404"),
        ("away", Answer::Status(503, String::new()), 5, "status 503"),
    ] {
        exchange.refuses(PACK, (what, answer), code, &[words, "  try: muster pack search "]);
    }
    assert_eq!(elsewhere.asked(), [], "nobody was led there");
    exchange.is_honest();
    exchange.import(&[]).with_code(0);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn a_list_that_lies_imports_nothing_and_leads_nobody_elsewhere() {
    let exchange = Exchange::start();
    let place = &exchange.place;
    let (switch, background) = (place.start_switch(), place.start_background());
    let elsewhere = WebServer::start(place);
    elsewhere.gives(LIST, Answer::File(exchange.list.to_string().into_bytes()));
    elsewhere.gives(PACK, Answer::File(exchange.pack.clone()));
    let there = elsewhere.url(PACK);
    let says =
        |change: &dyn Fn(&mut Value)| Answer::File(exchange.list_with(change).to_string().into_bytes());
    for (what, answer, code, words) in [
        ("a redirect", Answer::Status(301, elsewhere.url(LIST)), 1, "redirects are not followed"),
        ("no list", Answer::File(b"<html>Log in first</html>".to_vec()), 1, "no list of packs"),
        ("half", Answer::Short(exchange.list.to_string().into_bytes(), 300), 1, "no list of packs"),
        ("without end", Answer::Endless, 1, "more than 4194304 bytes"),
        ("away", Answer::Status(500, String::new()), 5, "status 500"),
        ("unknown", says(&|pack| pack["trusted"] = json!(true)), 1, "unknown field"),
        ("another server", says(&|pack| pack["url"] = json!(there)), 1, "on the server of its list"),
        ("above", says(&|pack| pack["url"] = json!("../../x.pack")), 1, "on the server of its list"),
        ("another size", says(&|pack| pack["size"] = json!(1)), 1, "the server would send"),
        ("another SHA-256", says(&|pack| pack["sha256"] = json!("0".repeat(64))), 1, "the list says 000"),
        // The pack is genuine, and whoever chose it by these words would get another one.
        ("other words", says(&|pack| pack["says"] = json!("Harmless.")), 1, "they differ in says"),
        ("another version", says(&|pack| pack["version"] = json!("9.0.0")), 1, "they differ in version"),
        ("another signer", says(&|pack| pack["publisher"]["subject"] = json!("CN=x")), 1, "in publisher"),
        (
            "another name",
            says(&|pack| pack["name"] = json!("Acme-Other-Pack")),
            2,
            "no pack `Acme-Test-Pack`",
        ),
    ] {
        exchange.refuses(LIST, (what, answer), code, &[words, "  try: muster"]);
    }
    assert_eq!(elsewhere.asked(), [], "nobody was led there");
    exchange.is_honest();
    exchange.import(&[]).with_code(0);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn a_pack_of_an_exchange_is_judged_by_its_own_signature_and_its_server_by_the_roots_that_are_named() {
    let exchange = Exchange::start();
    let place = &exchange.place;
    let (switch, background) = (place.start_switch(), place.start_background());
    let url = exchange.url();
    let import = ["pack", "import", NAME, "--exchange", &url];
    let roots = |name: &str| place.home().join("trust").join(name).display().to_string();

    let of_devices = roots("devices.pem");
    let unknown = run(exchange.command(&import).args(["--https-roots", &of_devices])).with_code(4);
    unknown.naming(&["--https-roots FILE", "HOME/trust/exchanges.pem"]);
    let by_the_system = run(&mut exchange.command(&import));
    assert!([2, 4].contains(&by_the_system.code), "{by_the_system:?}");
    assert_eq!(exchange.server.asked(), [], "a server that is not believed is asked for nothing");
    let http = url.replace("https:", "http:");
    for words in [&["search", &http][..], &["import", NAME, "--exchange", &http]] {
        exchange.muster(words).with_code(2).naming(&["it does not begin with https://"]);
    }
    exchange.muster(&["import", &url]).with_code(2).naming(&["--exchange"]);

    let other = Place::with_pki(&[]);
    let foreign = std::fs::read(build(&other)).unwrap();
    exchange.gives_list(&list(&other, &other.home()));
    exchange.server.gives(PACK, Answer::File(foreign));
    exchange.import(&[]).with_code(4).naming(&["the pack's index", "trust/authors.pem"]);
    assert_eq!((held(place), exchange.left()), (none(), 0));

    exchange.is_honest();
    std::fs::copy(roots("servers.pem"), roots("exchanges.pem")).unwrap();
    run(&mut exchange.command(&import)).with_code(0);
    [background, switch].into_iter().for_each(Service::stop);
}

#[test]
fn an_exchange_that_hangs_is_given_up_and_one_that_is_killed_meanwhile_leaves_nothing() {
    let exchange = Exchange::start();
    let place = &exchange.place;
    let (switch, background) = (place.start_switch(), place.start_background());
    exchange.server.gives(PACK, Answer::Hang(exchange.pack.clone(), 20_000));
    let silent = WebServer::start(place);
    silent.gives(LIST, Answer::Silence);
    let roots = place.home().join("trust/servers.pem").display().to_string();
    let url = exchange.url();
    let words = ["pack", "import", NAME, "--exchange", &url, "--https-roots", &roots];

    let mut killed = exchange.command(&words).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let is_asked = |asked: &Asked| asked.path == PACK;
    wait_until("the pack to be asked for", || exchange.server.asked().iter().any(is_asked));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(exchange.left(), 0);

    let began = Instant::now();
    let (pack, list) = std::thread::scope(|scope| {
        let pack = scope.spawn(|| run(&mut exchange.command(&words)));
        let list = scope.spawn(|| exchange.muster(&["search", &silent.url(LIST)]));
        (pack.join().unwrap(), list.join().unwrap())
    });
    let took = began.elapsed();

    pack.with_code(5).naming(&["nothing came for 30s", "nothing of the pack is kept"]);
    list.with_code(5).naming(&["no whole answer within 30s"]);
    assert!((Duration::from_secs(30)..Duration::from_secs(55)).contains(&took), "{took:?}");
    assert_eq!((held(place), exchange.left()), (none(), 0));
    [background, switch].into_iter().for_each(Service::stop);
}
