//! What a home has seen of the Switch of a context, and what is held against it before anything is signed.
//!
//! For which organisation an order is, under which licence and under which number, nobody types. The Switch alone says it, so it is held
//! against the licence, which a licensor signed, and against what earlier orders said: `seen/CONTEXT.toml` in the home, written
//! before the signature is made. So it is with a definition's version where nobody types one: the Switch must not choose one below what
//! this home has seen, which may have wanted more approvals.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::{Facts, Role, UnixTime};
use muster_proto::operator::v1::GetLicenceRequest;
use muster_proto::order::v1::Order;
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType};
use muster_signing::licence::{Licence, LicenceRefusal};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::address;
use crate::clock::now_ms;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home, OWN_FILE, Secrecy, text_if_there};
use crate::issue::Authored;
use crate::operator::{Operator, answered};
use crate::output;
use crate::provision;

/// The folder of a home with a file for each context.
const FOLDER: &str = "seen";

/// How many numbers of orders beyond one a millisecond are believed: many operators prepare at once, and the clocks of two looks may be
/// seconds apart.
const SEQUENCE_SLACK: u64 = 10_000;

/// Definitions whose versions are remembered of one context. Only what an author signed and a licence admits is, so that no Switch fills it up;
/// it is some 200 KiB then, written with each order.
const VERSIONS_MAX: usize = 4_096;

/// Between two tries to have the file for oneself.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often that is tried: whoever has it writes a small file.
const LOCK_TRIES: u32 = 500;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// For which organisation the orders are; empty: there was none yet.
    tenant: String,
    /// The highest serial of a licence of that organisation.
    licence_serial: u64,
    /// `host:port` of the Switch whose numbers the following are.
    switch: String,
    /// The highest number of an order,
    sequence: u64,
    /// and when it came, in milliseconds since 1970.
    sequence_at_ms: i64,
    /// The highest version of each definition, by its name, that was there with a signature and a licence. The last field, since it is a
    /// table of the file.
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

/// Who chose the version of the definition that an order is to issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// The operator typed it.
    Typed,
    /// The Switch, which is to take the highest.
    BySwitch,
}

/// Whether an order was prepared a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It was, for whoever is to sign it.
    New(Chosen),
    /// It waits for approvals, perhaps since before the licence of today.
    Waiting,
}

/// What is known beside it.
#[derive(Debug)]
struct Known<'a> {
    context: &'a Context,
    /// The licence that lies in the home itself.
    own_licence: Option<&'a Licence>,
    /// The organisation that the home was made for.
    own_tenant: Option<&'a str>,
    now_ms: i64,
}

/// Holds an order that is to be signed, or approved, against what this home knows; remembers it.
///
/// # Errors
/// What differs, or that it cannot be remembered; nothing may be signed then.
pub(crate) async fn hold(
    operator: &Operator,
    home: &Home,
    order: &Order,
    authored: &Authored,
    age: Age,
) -> Result<(), Failure> {
    let roots = home.roots("licences");
    if !roots.exists() {
        let told = format!("{} is not there: the licence of the Switch cannot be verified", roots.display());
        return Err(Failure::usage(told).with_next("put the roots of the licensors there, in PEM"));
    }
    let Some((licence, _)) = licence(operator, home).await? else {
        return Err(denied("the Switch holds no licence").with_next("muster licence import FILE"));
    };
    check_licence(order, authored, &licence, age, UnixTime::now())?;
    let definition = &authored.definition;
    with_seen(operator.context(), home, |seen, known| {
        seen.with_order(order, &licence, known)?.with_issued(definition, age)
    })
    .await
}

/// Remembers definitions that were imported or shown, as far as a licence admits them, the Switch's or the home's own, since a Switch that
/// wants one forgotten gives none: from then on the Switch may choose none below them. Returns a line on what is not remembered, for whoever
/// imported it; a home that cannot be written signs nothing either.
pub(crate) async fn learn(operator: &Operator, home: &Home, authored: &[Authored]) -> Option<String> {
    if authored.is_empty() {
        return None;
    }
    let now = UnixTime::now();
    let told = licence(operator, home).await.ok().flatten().map(|(licence, _)| licence);
    let licences = told.into_iter().chain(provision::held_licence(home, now));
    let licences: Vec<Licence> = licences.filter(|licence| licence.is_valid_at(now)).collect();
    let mut forgotten = Vec::new();
    let learned = with_seen(operator.context(), home, |seen, known| {
        let after = licences.iter().fold(seen.clone(), |seen, licence| {
            let admitted = authored.iter().filter(|authored| admits(licence, authored).is_ok());
            let definitions: Vec<&Definition> = admitted.map(|authored| &authored.definition).collect();
            seen.with_definitions(&definitions, licence, known)
        });
        let definitions = authored.iter().map(|authored| &authored.definition);
        let unknown = definitions.filter(|definition| !after.knows(definition));
        forgotten.extend(unknown.map(|definition| format!("{} {}", definition.name(), definition.version())));
        Ok(after)
    });
    match learned.await {
        Ok(()) => not_remembered(&forgotten),
        Err(failure) => Some(format!("this home does not remember what was imported: {failure}")),
    }
}

/// Says of definitions that nothing keeps a Switch from choosing older ones.
fn not_remembered(definitions: &[String]) -> Option<String> {
    const NAMED_MAX: usize = 5;
    let (named, others) = definitions.split_at_checked(NAMED_MAX).unwrap_or((definitions, &[]));
    let others = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
    (!definitions.is_empty()).then(|| {
        format!(
            "this home does not remember {}{others}: no licence that it can verify admits them, or it has room for no more; import them again once one does, or the \
             Switch may choose older versions where none is typed",
            named.join(", ")
        )
    })
}

/// As [`hold`], of a stop, which no licence is asked for.
pub(crate) async fn hold_stop(operator: &Operator, home: &Home, stop: &Order) -> Result<(), Failure> {
    with_seen(operator.context(), home, |seen, known| seen.with_stop(stop, known)).await
}

/// Returns the licence that the Switch holds, and its text, verified by the roots of the home.
pub(crate) async fn licence(operator: &Operator, home: &Home) -> Result<Option<(Licence, String)>, Failure> {
    let held = answered(operator.licence().get_licence(GetLicenceRequest {})).await?.envelope;
    if held.is_empty() { Ok(None) } else { verified(home, &held).map(Some) }
}

/// Returns a licence that a Switch gave, and its text, verified by the roots of the home.
pub(crate) fn verified(home: &Home, held: &[u8]) -> Result<(Licence, String), Failure> {
    let roots = home.document_roots("licences")?;
    let facts = Facts::at(UnixTime::now());
    let verified = envelope::verify(held, ContentType::Licence, Role::Licensor, &roots.anchors(), &facts)
        .map_err(|error| Failure::denied(format!("the licence's signature: {error}")))?;
    let text = String::from_utf8(verified.content).map_err(|error| Failure::denied(error.to_string()))?;
    let licence = Licence::parse(&text).map_err(|error| Failure::denied(error.to_string()))?;
    Ok((licence, text))
}

/// The organisation whose orders a context takes, as far as it is known.
pub(crate) fn tenant(home: &Home, context: &Context) -> String {
    if !context.tenant.is_empty() {
        return context.tenant.clone();
    }
    path(home, &context.name).and_then(|path| Seen::read(&path)).unwrap_or_default().tenant
}

/// Forgets what was seen of the Switch of a context.
pub(crate) fn forget(home: &Home, context: &str) -> Result<(), Failure> {
    // A context that was written by hand under a name that no file has was never used.
    let Ok(path) = path(home, context) else { return Ok(()) };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Refused, format!("remove {}: {error}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What an order needs of the licence alone: it is the one that the order names, or, of an order that waited, a later one, and licenses what
/// the order issues.
fn check_licence(
    order: &Order,
    authored: &Authored,
    licence: &Licence,
    age: Age,
    now: UnixTime,
) -> Result<(), Failure> {
    if licence.tenant() != order.tenant {
        let (told, own) = (&order.tenant, licence.tenant());
        return Err(denied(format!(
            "the Switch prepared an order for the organisation {told:?}, and holds a licence for {own:?}"
        ))
        .with_next(RIGHT_SWITCH));
    }
    if !licence.is_valid_at(now) {
        let told = format!("the Switch holds licence {}, which is not valid now", licence.serial());
        return Err(denied(told).with_next("muster licence import FILE"));
    }
    let is_its_licence = match age {
        Age::New(_) => order.licence_serial == licence.serial(),
        Age::Waiting => order.licence_serial <= licence.serial(),
    };
    if !is_its_licence {
        let (told, held) = (order.licence_serial, licence.serial());
        return Err(denied(format!(
            "the order is under licence {told}, and the licence of its Switch has the serial {held}"
        ))
        .with_next(
            "the same command again, if a licence has just been imported\n   or: muster doctor   (is it the right \
             Switch?)",
        ));
    }
    admits(licence, authored)
        .map_err(|error| denied(format!("the definition: {error}")).with_next("muster licence show"))
}

fn admits(licence: &Licence, authored: &Authored) -> Result<(), LicenceRefusal> {
    let Authored { definition, author, stamped_at } = authored;
    licence.admits(definition.name(), definition.version(), author, *stamped_at)
}

const RIGHT_SWITCH: &str = "muster doctor   (is it the right Switch?)";

const BEGIN_ANEW: &str = "muster ctx remove NAME, then muster ctx add NAME --tenant …, which begins anew";

impl Seen {
    fn read(path: &Path) -> Result<Self, Failure> {
        match text_if_there(path, OWN_FILE) {
            Ok(Some(text)) => toml::from_str(&text).map_err(|error| {
                let told = format!("{}: {}", path.display(), error.to_string().trim_end());
                denied(told).with_next(BEGIN_ANEW)
            }),
            Ok(None) => Ok(Self::default()),
            Err(error) => Err(denied(error.to_string()).with_next(BEGIN_ANEW)),
        }
    }

    /// Returns what is seen with an order that is to be signed; its licence is the one that it names.
    fn with_order(&self, order: &Order, licence: &Licence, known: &Known<'_>) -> Result<Self, Failure> {
        self.check_tenant(order, known)?;
        let highest = self.highest_serial(&order.tenant, known);
        if licence.serial() < highest {
            let told = licence.serial();
            let name = &known.context.name;
            return Err(denied(format!(
                "the Switch holds licence {told}; this home has seen licence {highest}, and a serial never goes back"
            ))
            .with_next(format!(
                "muster licence import FILE, with licence {highest} or a later one\n   or: muster ctx remove {name}, then \
                 muster ctx add {name} …, if the licensor began anew"
            )));
        }
        let numbered = self.with_sequence(order, known)?;
        Ok(Self { tenant: order.tenant.clone(), licence_serial: licence.serial(), ..numbered })
    }

    /// The highest serial of a licence of an organisation that was seen.
    fn highest_serial(&self, tenant: &str, known: &Known<'_>) -> u64 {
        let own = known.own_licence.filter(|own| own.tenant() == tenant).map_or(0, Licence::serial);
        let seen = if self.tenant == tenant { self.licence_serial } else { 0 };
        seen.max(own)
    }

    /// Returns what is seen with the definition of an order that is to be signed. Of one to approve, somebody else has signed which version it
    /// is, and it is shown.
    fn with_issued(self, definition: &Definition, age: Age) -> Result<Self, Failure> {
        let (name, version) = (definition.name().to_string(), definition.version());
        match age {
            Age::New(Chosen::BySwitch) => self.check_version(&name, version)?,
            Age::New(Chosen::Typed) | Age::Waiting => {}
        }
        if !self.versions.contains_key(&name) && self.versions.len() >= VERSIONS_MAX {
            return Err(denied(format!(
                "this home remembers the versions of {VERSIONS_MAX} definitions of its Switch, which is the most, and {name} is another one"
            ))
            .with_next(BEGIN_ANEW));
        }
        Ok(self.with_version(name, version))
    }

    /// A version with fewer approvals, or with a mistake that was mended since, is not the Switch's to choose.
    fn check_version(&self, name: &str, version: &Version) -> Result<(), Failure> {
        let Some(highest) = self.versions.get(name).filter(|highest| version < *highest) else {
            return Ok(());
        };
        Err(denied(format!(
            "the Switch prepared {name} {version}; wanted {highest} or later, which this home has seen, since no version was typed"
        ))
        .with_next(format!(
            "muster definition list   (if {highest} is not there or not ready, it tells why; import it again)\n   or: muster run {name} \
             --definition-version {version} …, if that version is meant"
        )))
    }

    /// Returns what is seen with definitions that a licence admits. An older licence, or another organisation's, says nothing.
    fn with_definitions(&self, definitions: &[&Definition], licence: &Licence, known: &Known<'_>) -> Self {
        let tenant = licence.tenant();
        let is_others = self.tenant(known).is_some_and(|wanted| wanted != tenant);
        if is_others || licence.serial() < self.highest_serial(tenant, known) {
            return self.clone();
        }
        definitions.iter().fold(self.clone(), |seen, definition| {
            let name = definition.name().to_string();
            let has_room = seen.versions.len() < VERSIONS_MAX || seen.versions.contains_key(&name);
            if has_room { seen.with_version(name, definition.version()) } else { seen }
        })
    }

    /// Whether this version of a definition, or a higher one, is remembered.
    fn knows(&self, definition: &Definition) -> bool {
        self.versions.get(definition.name().as_str()).is_some_and(|highest| highest >= definition.version())
    }

    fn with_version(mut self, name: String, version: &Version) -> Self {
        let highest = self.versions.entry(name).or_insert_with(|| version.clone());
        if *highest < *version {
            highest.clone_from(version);
        }
        self
    }

    /// Returns what is seen with a stop that is to be signed. It is not what tells of an organisation or a licence first: nothing but
    /// the Switch's word stands behind it.
    fn with_stop(&self, stop: &Order, known: &Known<'_>) -> Result<Self, Failure> {
        self.check_tenant(stop, known)?;
        self.with_sequence(stop, known)
    }

    /// The organisation that was told before: by who added the context, by the first order, or by who made the home.
    fn tenant<'a>(&'a self, known: &Known<'a>) -> Option<&'a str> {
        let told = |tenant: &'a str| Some(tenant).filter(|tenant| !tenant.is_empty());
        told(&known.context.tenant).or(told(&self.tenant)).or(known.own_tenant)
    }

    fn check_tenant(&self, order: &Order, known: &Known<'_>) -> Result<(), Failure> {
        let Some(wanted) = self.tenant(known).filter(|wanted| *wanted != order.tenant) else { return Ok(()) };
        let name = &known.context.name;
        Err(denied(format!(
            "the Switch prepared an order for the organisation {}; context {name} is for {}",
            json_text(&order.tenant),
            json_text(wanted)
        ))
        .with_next(format!(
            "muster ctx list   (is it the right Switch?)\n   or: muster ctx remove {name}, then muster ctx add {name} --tenant {} …, \
             if that organisation is meant",
            json_text(&order.tenant)
        )))
    }

    /// Several operators share the numbers of a Switch, so that they can only be bounded. A Switch that was brought back from a copy
    /// goes back, and a number too low harms nobody's order but its own. One beyond all others would leave no room for
    /// those that come: whoever goes by the highest would take none of them.
    fn with_sequence(&self, order: &Order, known: &Known<'_>) -> Result<Self, Failure> {
        let switch = &known.context.switch;
        let (last, at_ms) =
            if self.switch == *switch { (self.sequence, self.sequence_at_ms) } else { (0, 0) };
        let since_ms = u64::try_from(known.now_ms.saturating_sub(at_ms)).unwrap_or(0);
        let most = last.saturating_add(since_ms).saturating_add(SEQUENCE_SLACK);
        if order.sequence > most {
            return Err(denied(format!(
                "the order has the number {}; wanted at most {most}, which is one a millisecond since {last}, the highest that this home has seen of {switch}",
                order.sequence
            ))
            .with_next(RIGHT_SWITCH));
        }
        if order.sequence <= last {
            return Ok(self.clone());
        }
        Ok(Self {
            switch: switch.clone(),
            sequence: order.sequence,
            sequence_at_ms: known.now_ms,
            ..self.clone()
        })
    }
}

/// Reads what was seen, and writes what is seen after `look`, with nobody else in between.
async fn with_seen(
    context: &Context,
    home: &Home,
    look: impl FnOnce(&Seen, &Known<'_>) -> Result<Seen, Failure>,
) -> Result<(), Failure> {
    let now = UnixTime::now();
    let own_licence = provision::held_licence(home, now).filter(|own| own.is_valid_at(now));
    let own_tenant = provision::tenant(home, now)?;
    let known = Known {
        context,
        own_licence: own_licence.as_ref(),
        own_tenant: own_tenant.as_deref(),
        now_ms: now_ms(),
    };
    let path = path(home, &context.name)?;
    let _locked = lock(home).await?;
    let seen = Seen::read(&path)?;
    let after = look(&seen, &known)?;
    if after == seen {
        return Ok(());
    }
    let text = toml::to_string(&after).map_err(|error| denied(error.to_string()))?;
    home.write(&format!("{FOLDER}/{}.toml", context.name), text.as_bytes(), Secrecy::Private).map_err(
        |failure| failure.adding("what is seen of the Switch has to be remembered first; nothing was signed"),
    )?;
    if seen.tenant(&known).is_none() && !after.tenant.is_empty() {
        output::note(&output::printable(&format!(
            "context {} is for the organisation {} from now on, as its Switch and a licence say",
            context.name,
            json_text(&after.tenant)
        )));
    }
    Ok(())
}

/// Keeps others of this home from the files until it is dropped, or the process ends.
async fn lock(home: &Home) -> Result<File, Failure> {
    let path = home.path(FOLDER).join(".lock");
    let opened = std::fs::create_dir_all(home.path(FOLDER))
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let failed = |error: &dyn std::fmt::Display| denied(format!("{}: {error}", path.display()));
    let file = opened.map_err(|error| failed(&error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Err(failed(&format!("another muster has had it for {:?}; end that", LOCK_PAUSE * LOCK_TRIES)))
}

/// The file of a context. Its name may have been written into contexts.toml by hand.
fn path(home: &Home, context: &str) -> Result<PathBuf, Failure> {
    let name = address::context_name(context).map_err(|error| {
        Failure::usage(format!("context {context:?}: {error}")).with_next("muster ctx list")
    })?;
    Ok(home.path(FOLDER).join(format!("{name}.toml")))
}

/// A text between quotes, which ends where it ends.
fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn denied(told: impl Into<String>) -> Failure {
    Failure::denied(format!("{}; nothing was signed", told.into()))
}

#[cfg(test)]
mod tests;
