//! Filters that are quick to put on and to run.
//!
//! A compiled filter asks for one system call after the other. The kernel walks it once for each call that there is when
//! it is put on, which takes longer than the threads' starts, and then for each call whose arguments matter. So a long
//! list is cut into short ones, by number, and a few steps before them find the right one. Each of these is a whole
//! filter: a step that went wrong would end where the call is not allowed.

use std::error::Error;

use seccompiler::{BpfProgram, TargetArch, compile_from_json, sock_filter};
use serde_json::{Value, json};

use super::{Rules, filter};

/// System calls in a short list.
const SHORT: usize = 8;

/// BPF's own: load a word, jump, jump if equal, jump if at least.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
/// Of the system call's number in what a filter is shown.
const NUMBER_OFFSET: u32 = 0;

/// The filter of a role: what the rules have is allowed, and all else ends the process.
pub fn compile(rules: &Rules) -> Result<BpfProgram, Box<dyn Error>> {
    let mut calls = rules
        .iter()
        .map(|(call, alternatives)| Ok((number(call)?, call, alternatives)))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    calls.sort_unstable_by_key(|&(number, ..)| number);
    let short = calls
        .chunks(SHORT)
        .map(|part| {
            let rules: Rules = part
                .iter()
                .map(|&(_, call, alternatives)| (call.clone(), alternatives.clone()))
                .collect();
            Ok((part[0].0, one(filter(&rules, "allow", "kill_process"))?))
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    Ok(join(&short))
}

/// Puts the steps that find the right one before filters, of which each is given with its lowest system call.
fn join(short: &[(u32, BpfProgram)]) -> BpfProgram {
    let mut joined = vec![step(LOAD, 0, 0, NUMBER_OFFSET)];
    let mut before = 0;
    for (nth, (_, program)) in short.iter().enumerate() {
        if let Some((lowest, _)) = short.get(nth + 1) {
            joined.push(step(JUMP_AT_LEAST, 1, 0, *lowest));
        }
        // Over the steps for those behind it, two each but one for the last, and over the filters before it.
        let behind = 2 * (short.len() - 1 - nth);
        joined.push(step(JUMP, 0, 0, (behind.saturating_sub(1) + before) as u32));
        before += program.len();
    }
    joined.extend(short.iter().flat_map(|(_, program)| program).cloned());
    joined
}

/// A system call's number: what the filter that has it alone compares with.
fn number(call: &str) -> Result<u32, Box<dyn Error>> {
    let alone = Rules::from([(call.to_owned(), Vec::new())]);
    let program = one(filter(&alone, "allow", "kill_process"))?;
    // The comparison before it is of the architecture.
    let compared = program.iter().filter(|step| step.code == JUMP_EQUAL).nth(1);
    Ok(compared.ok_or("a filter without a comparison")?.k)
}

pub fn one(filter: Value) -> Result<BpfProgram, Box<dyn Error>> {
    let text = json!({ "one": filter }).to_string();
    let mut programs = compile_from_json(text.as_bytes(), TargetArch::x86_64)?;
    Ok(programs.remove("one").ok_or("no program")?)
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
