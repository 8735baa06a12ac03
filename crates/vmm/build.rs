//! Compiles `seccomp/filters.list` into BPF programs, one for each role, as Rust arrays that
//! `src/jail/filter.rs` includes; and says how the binary is linked.

#[path = "build/link.rs"]
mod link;
#[path = "build/search.rs"]
mod search;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use seccompiler::BpfProgram;
use serde_json::{Value, json};

const LIST: &str = "seccomp/filters.list";

/// A role's rules by system call. Each is a list of alternatives; a call without any takes all arguments.
type Rules = BTreeMap<String, Vec<Value>>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={LIST}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    link::link()?;
    let roles = parse(&fs::read_to_string(LIST)?)?;
    let mut programs = BTreeMap::new();
    let mut plain_programs = BTreeMap::new();
    for (role, rules) in &roles {
        let program = search::compile(rules).map_err(|error| format!("{LIST}: [{role}]: {error}"))?;
        programs.insert(role.to_uppercase(), program);
        // What it is compared with.
        let plain = search::one(filter(rules, "allow", "kill_process"))?;
        plain_programs.insert(format!("PLAIN_{}", role.to_uppercase()), plain);
    }
    // The C library turns to `clone`, whose flags a filter can see.
    let no_clone3 = Rules::from([("clone3".to_owned(), Vec::new())]);
    let enosys = json!({ "errno": libc::ENOSYS });
    let no_clone3 = search::one(filter(&no_clone3, enosys, "allow"))?;
    programs.insert("NO_CLONE3".to_owned(), no_clone3);
    let out = PathBuf::from(env::var("OUT_DIR")?).join("filters.rs");
    let text = arrays("", &programs)? + &arrays("#[cfg(test)]\n", &plain_programs)?;
    fs::write(out, text)?;
    Ok(())
}

fn parse(list: &str) -> Result<BTreeMap<String, Rules>, String> {
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    let mut roles: BTreeMap<String, Rules> = BTreeMap::new();
    let mut groups = Vec::new();
    let mut role: Option<&str> = None;
    for (line, number) in list.lines().zip(1..) {
        let wrong = |what: &str| format!("{LIST}:{number}: {what}: {line}");
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        match (words.as_slice(), role) {
            ([], _) => {}
            (["let", name, "=", value], _) => {
                let value = number_of(&names, value).ok_or_else(|| wrong("no number"))?;
                names.insert(name, value);
            }
            ([header], _) if header.starts_with(['[', '<']) => {
                let name = header.trim_matches(['[', ']', '<', '>']);
                if roles.insert(name.to_owned(), Rules::new()).is_some() {
                    return Err(wrong("a second list of this role"));
                }
                if header.starts_with('<') {
                    groups.push(name.to_owned());
                }
                role = Some(name);
            }
            (["include", included @ ..], Some(role)) => {
                for included in included {
                    let rules = roles
                        .get(*included)
                        .ok_or_else(|| wrong("no such role above"))?
                        .clone();
                    for (call, alternatives) in rules {
                        allow(&mut roles, role, &call, alternatives);
                    }
                }
            }
            ([call, conditions @ ..], Some(role)) => {
                let conditions: Option<Vec<Value>> =
                    conditions.iter().map(|text| condition(&names, text)).collect();
                let conditions = conditions.ok_or_else(|| wrong("no condition"))?;
                let alternatives = if conditions.is_empty() {
                    vec![]
                } else {
                    vec![conditions.into()]
                };
                allow(&mut roles, role, call, alternatives);
            }
            (_, None) => return Err(wrong("before the first role")),
        }
    }
    roles.retain(|name, _| !groups.contains(name));
    Ok(roles)
}

/// Adds alternatives, of which none at all means any arguments.
fn allow(roles: &mut BTreeMap<String, Rules>, role: &str, call: &str, alternatives: Vec<Value>) {
    let rules = roles.entry(role.to_owned()).or_default();
    match rules.get_mut(call) {
        Some(known) if known.is_empty() || alternatives.is_empty() => known.clear(),
        Some(known) => {
            known.extend(
                alternatives
                    .into_iter()
                    .filter(|new| !known.contains(new))
                    .collect::<Vec<_>>(),
            );
        }
        None => drop(rules.insert(call.to_owned(), alternatives)),
    }
}

/// `argN=VALUE` or `argN&MASK=VALUE`, of the lower 32 bits of argument N.
fn condition(names: &BTreeMap<&str, u64>, text: &str) -> Option<Value> {
    let (left, value) = text.split_once('=')?;
    let value = number_of(names, value)?;
    let (argument, operator) = match left.split_once('&') {
        Some((argument, mask)) => (argument, json!({ "masked_eq": number_of(names, mask)? })),
        None => (left, json!("eq")),
    };
    let index: u8 = argument.strip_prefix("arg")?.parse().ok()?;
    Some(json!({ "index": index, "type": "dword", "op": operator, "val": value }))
}

fn number_of(names: &BTreeMap<&str, u64>, text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok().or_else(|| names.get(text).copied()),
    }
}

fn filter(rules: &Rules, matched: impl Into<Value>, otherwise: &str) -> Value {
    let mut list = Vec::new();
    for (call, alternatives) in rules {
        if alternatives.is_empty() {
            list.push(json!({ "syscall": call }));
        }
        list.extend(
            alternatives
                .iter()
                .map(|args| json!({ "syscall": call, "args": args })),
        );
    }
    json!({ "match_action": matched.into(), "mismatch_action": otherwise, "filter": list })
}

fn arrays(attribute: &str, programs: &BTreeMap<String, BpfProgram>) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (name, program) in programs {
        writeln!(
            text,
            "{attribute}static {name}: [libc::sock_filter; {}] = [",
            program.len()
        )?;
        for step in program {
            let (code, jt, jf, k) = (step.code, step.jt, step.jf, step.k);
            writeln!(
                text,
                "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
            )?;
        }
        writeln!(text, "];")?;
    }
    Ok(text)
}
