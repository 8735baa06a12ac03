//! Command lines that cannot be understood, in the words of aws cli where it has some.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

const HELP: &str = "To see help text, you can run:\n\n  hearth help\n  hearth <command> help\n";

/// What is wrong, and where help is. Help and version texts as they are.
pub(crate) fn explained(error: &Error) -> String {
    let problem = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            // Without the names of their values.
            let flags = named(error, ContextKind::InvalidArg);
            let flags: Vec<&str> = flags.iter().filter_map(|flag| flag.split(' ').next()).collect();
            format!("the following arguments are required: {}", flags.join(", "))
        }
        ErrorKind::InvalidSubcommand => {
            let given = named(error, ContextKind::InvalidSubcommand).concat();
            let meant = named(error, ContextKind::SuggestedSubcommand);
            // The most similar is the last.
            let meant = meant
                .iter()
                .rev()
                .take(3)
                .map(|command| format!("\n  * {command}"));
            match meant.collect::<String>().as_str() {
                "" => format!("Invalid choice: '{given}'"),
                meant => format!("Invalid choice: '{given}', maybe you meant:\n{meant}"),
            }
        }
        ErrorKind::UnknownArgument => {
            format!(
                "Unknown options: {}",
                named(error, ContextKind::InvalidArg).concat()
            )
        }
        _ => return error.to_string(),
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    format!("{usage}\n\n{HELP}\nhearth: error: {problem}\n")
}

fn named(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    }
}
