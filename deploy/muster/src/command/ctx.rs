//! `muster ctx`: where the Switches are.

use crate::cli::Ctx;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::output::{self, Cell, Flag, Table};
use crate::seen;

/// Runs a verb.
pub(crate) fn run(home: &Home, verb: Ctx) -> Result<Exit, Failure> {
    match verb {
        Ctx::List { output } => list(home, output)?,
        Ctx::Use { name } => {
            let context = home.context(Some(&name))?;
            let mut contexts = home.contexts()?;
            contexts.current.clone_from(&context.name);
            home.save_contexts(&contexts)?;
            output::note(&format!("using {name}: the Switch at {}", context.switch));
        }
        Ctx::Add { name, switch, background_channel, admin, tenant } => {
            let is_known = home.contexts()?.contexts.iter().any(|context| context.name == name);
            home.use_context(Context { name: name.clone(), switch, background_channel, admin, tenant })?;
            let done = if is_known { "replaced" } else { "added" };
            output::note(&format!("{done} {name} and using it; try: muster doctor"));
        }
        Ctx::Remove { name } => {
            home.context(Some(&name))?;
            let mut contexts = home.contexts()?;
            contexts.contexts.retain(|context| context.name != name);
            let was_current = contexts.current == name;
            if was_current {
                contexts.current.clear();
            }
            home.save_contexts(&contexts)?;
            seen::forget(home, &name)?;
            output::note(&format!("removed {name}"));
            if let (true, Some(other)) = (was_current, contexts.contexts.first()) {
                output::note(&format!("no context is the current one\n  try: muster ctx use {}", other.name));
            }
        }
    }
    Ok(Exit::Ok)
}

fn list(home: &Home, format: output::Format) -> Result<(), Failure> {
    let contexts = home.contexts()?;
    let mut table = Table::new(["name", "current", "switch", "background_channel", "tenant", "admin"])
        .wide_only(&["admin"]);
    for context in &contexts.contexts {
        table.push(vec![
            Cell::text(&context.name),
            Cell::flag(Flag::from(context.name == contexts.current)),
            Cell::text(&context.switch),
            Cell::text(&context.background_channel),
            Cell::text(seen::tenant(home, context)),
            Cell::text(&context.admin),
        ]);
    }
    table.print(format)?;
    if contexts.contexts.is_empty() {
        output::note("no context yet; try: muster dev   or   muster ctx add NAME --switch HOST:4001");
    }
    Ok(())
}
